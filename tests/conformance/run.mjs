// Every scenario of the official MCP conformance suite that a bridge can meet, each alone and with its strict verdict (a
// failure, a warning, a time-out or a client that ends with an error counts as failed), and a table of what came of them.
//
//   run [--list] [NAME ...]      with names: the scenarios that hold one of them

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { NOT_FOR_A_BRIDGE, SCENARIOS } from "./scenarios.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const binaries = join(process.env.CARGO_TARGET_DIR ?? join(here, "../../target"), "debug");
const logs = join(process.env.CARGO_TARGET_DIR ?? join(here, "../../target"), "e2e/conformance");
const suite = join(here, "node_modules/@modelcontextprotocol/conformance/dist/index.js");

/** A daemon of its own, in a folder that goes with it. */
async function daemon(log) {
  const process_ = spawn(join(binaries, "mcp-authd"), ["--ephemeral"], { stdio: ["pipe", "pipe", "pipe"] });
  let said = "";
  process_.stderr.on("data", (data) => (said += data));
  const [folder] = await once(createInterface({ input: process_.stdout }), "line");
  const stop = async () => {
    process_.stdin.end();
    if (process_.exitCode === null) await once(process_, "exit");
    writeFileSync(`${log}.daemon`, said);
  };
  return { socket: join(folder, "mcp-authd.sock"), stop };
}

/** Runs one scenario; undefined if it passed, else why not. */
async function run(name, version) {
  const log = join(logs, `${name.replaceAll("/", "-")}-${version}`);
  const { socket, stop } = await daemon(log);
  const options = ["client", "--scenario", name, "--command", `${process.execPath} ${join(here, "client.mjs")}`, "--verbose"];
  if (version !== "extension") options.push("--spec-version", version);
  const env = { ...process.env, MCP_AUTHD_SOCKET: socket, BRIDGE: join(binaries, "mcp-authctl"), BROWSER: join(here, "browser") };
  // A group of its own: on a time-out the suite ends its shell alone.
  const running = spawn(process.execPath, [suite, ...options], { env, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [running.stdout, running.stderr]) stream.on("data", (data) => (said += data));
  const [code] = await once(running, "close");
  try {
    process.kill(-running.pid, "SIGKILL");
  } catch {
    // Nobody is left.
  }
  await stop();
  writeFileSync(`${log}.log`, said);
  return code === 0 ? undefined : reason(said);
}

function reason(said) {
  const failed = [...said.matchAll(/"id":\s*"([^"]+)"[^{}]*?"status":\s*"(FAILURE|WARNING)"/g)].map(([, id]) => id);
  return failed.length > 0 ? [...new Set(failed)].join(", ") : (said.trim().split("\n").at(-1) ?? "no word");
}

const wanted = process.argv.slice(2);
if (wanted.includes("--list")) {
  for (const [name, versions] of SCENARIOS) console.log(`${name.padEnd(44)} ${versions.join(", ")}`);
  for (const [name, why] of NOT_FOR_A_BRIDGE) console.log(`${name.padEnd(44)} not run: ${why}`);
  process.exit(0);
}
rmSync(logs, { recursive: true, force: true });
mkdirSync(logs, { recursive: true });

const totals = {};
const failures = [];
const named = ([name]) => wanted.length === 0 || wanted.some((part) => name.includes(part));
const runs = SCENARIOS.filter(named).flatMap(([name, versions]) => versions.map((version) => [name, version]));

/** Takes one run after the other from those that are left. */
async function work() {
  for (let next = runs.shift(); next; next = runs.shift()) {
    const [name, version] = next;
    const failed = await run(name, version);
    const kind = name.startsWith("auth/") ? `authorization, ${version}` : `others, ${version}`;
    const total = (totals[kind] ??= { passed: 0, of: 0 });
    total.of += 1;
    if (!failed) total.passed += 1;
    console.log(`${name.padEnd(44)} ${version.padEnd(11)} ${failed ? `FAILED  ${failed}` : "passed"}`);
    if (failed) failures.push(`${name} ${version}: ${failed}`);
  }
}
// Each has its own server, daemon and bridge; two at a time, since most of a run is waiting for programs to start.
await Promise.all([work(), work()]);
console.log();
for (const [kind, { passed, of }] of Object.entries(totals)) console.log(`${kind.padEnd(44)} ${passed} of ${of}`);
const auth = Object.entries(totals).filter(([kind]) => kind.startsWith("authorization"));
const sum = (key) => auth.reduce((all, [, total]) => all + total[key], 0);
console.log(`authorization, all: ${sum("passed")} of ${sum("of")}`);
for (const [name, why] of wanted.length > 0 ? [] : NOT_FOR_A_BRIDGE) console.log(`not run: ${name}: ${why}`);
for (const failure of failures) console.log(`failed: ${failure}`);
process.exit(failures.length === 0 ? 0 : 1);
