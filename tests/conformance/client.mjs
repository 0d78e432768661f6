// The MCP client that the suite starts for each scenario: speaks to `mcp-authctl bridge URL` over stdio, in the era of the
// scenario, does what a client does (list, call), and ends with 0 if every answer was a result.
//
//   client.mjs URL    with MCP_CONFORMANCE_SCENARIO, _PROTOCOL_VERSION, _CONTEXT from the suite, BRIDGE from run.mjs

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { arguments_for } from "./credentials.mjs";

const url = process.argv.at(-1);
const scenario = process.env.MCP_CONFORMANCE_SCENARIO;
const version = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION;
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? "{}");
const stateless = version >= "2026";
const about = { name: "conformance-client", version: "1.0.0" };
const capabilities = { elicitation: { form: { applyDefaults: true } } };

const bridge = spawn(process.env.BRIDGE, ["bridge", ...arguments_for(scenario, context, url), url], {
  stdio: ["pipe", "pipe", "inherit"],
});
const waiting = new Map();
let ids = 0;
let clientVersion = version;

function send(message) {
  bridge.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
}

function notify(method) {
  send({ method });
}

/** One request and its answer; an error of the server is thrown. */
function request(method, params = {}) {
  const id = ++ids;
  const _meta = stateless && {
    "io.modelcontextprotocol/protocolVersion": clientVersion,
    "io.modelcontextprotocol/clientInfo": about,
    "io.modelcontextprotocol/clientCapabilities": capabilities,
  };
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    send({ id, method, params: _meta ? { ...params, _meta } : params });
  });
}

/** A request; where the server wants another version or the person's word first, once more with it. */
async function ask(method, params) {
  try {
    const result = await request(method, params);
    if (result.resultType !== "input_required") return result;
    const inputResponses = Object.fromEntries(
      Object.entries(result.inputRequests).map(([key, wanted]) => [key, elicited(wanted.params)]),
    );
    const state = result.requestState === undefined ? {} : { requestState: result.requestState };
    return await request(method, { ...params, inputResponses, ...state });
  } catch (error) {
    const supported = error.data?.supported;
    if (error.code !== -32022 || !supported?.length) throw error;
    clientVersion = supported[0];
    return request(method, params);
  }
}

/** Accepts, with the defaults that the server names and yes for the rest. */
function elicited({ requestedSchema }) {
  const properties = Object.entries(requestedSchema?.properties ?? {});
  const value = (property) => property.default ?? (property.type === "boolean" ? true : undefined);
  return { action: "accept", content: Object.fromEntries(properties.map(([name, property]) => [name, value(property)])) };
}

createInterface({ input: bridge.stdout }).on("line", (line) => {
  const message = JSON.parse(line);
  if (message.method === "elicitation/create") {
    send({ id: message.id, result: elicited(message.params) });
  } else if (message.method && message.id !== undefined) {
    send({ id: message.id, error: { code: -32601, message: "not here" } });
  } else if (waiting.has(message.id)) {
    const { resolve, reject } = waiting.get(message.id);
    waiting.delete(message.id);
    message.error ? reject(Object.assign(new Error(message.error.message), message.error)) : resolve(message.result);
  }
});
bridge.on("exit", (code, signal) => {
  for (const { reject } of waiting.values()) reject(new Error(`the bridge ended with ${signal ?? code}`));
});

/** What the scenario wants to be called, by the suite's context or by what the server lists. */
function calls(tools) {
  if (context.toolCalls) return context.toolCalls;
  // Listing is all that this server can do.
  if (scenario === "json-schema-ref-no-deref") return [];
  const echo = tools.find(({ name }) => name === "json_schema_echo");
  if (echo) return [{ name: echo.name, arguments: { schema: tools.find((tool) => tool !== echo).inputSchema } }];
  const numbers = { add_numbers: { a: 5, b: 3 } };
  return tools.map(({ name }) => ({ name, arguments: numbers[name] ?? {} }));
}

async function converse() {
  if (!stateless) {
    const params = { protocolVersion: version, capabilities, clientInfo: about };
    await request("initialize", params);
    notify("notifications/initialized");
  }
  const { tools } = await ask("tools/list");
  for (const call of calls(tools)) await ask("tools/call", call);
  if (scenario === "http-standard-headers") {
    const { resources } = await ask("resources/list");
    for (const { uri } of resources) await ask("resources/read", { uri });
    const { prompts } = await ask("prompts/list");
    for (const { name } of prompts) await ask("prompts/get", { name });
  }
}

try {
  await converse();
} catch (error) {
  console.error(`failed: ${error.message}`, JSON.stringify(error.data ?? null));
  process.exitCode = 1;
} finally {
  bridge.stdin.end();
  // What the bridge has to do at its end is part of the scenario.
  await new Promise((resolve) => (bridge.exitCode === null ? bridge.once("exit", resolve) : resolve()));
}
