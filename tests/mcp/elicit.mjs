// The official TypeScript SDKs as clients that show a person a page when they are asked to, for tests/tests/elicitation.rs.
//
//   node elicit.mjs '{"command": PROGRAM, "args": [...], "era": "2025-11-25" | "2026-07-28"}'
//
// Calls a tool, says `called` on stderr and waits for a line on stdin; calls it once more, and prints `open URL` for the page that
// it is given to show. In the newer era it waits for a line that says that the page was opened, or for `no`; in the older one
// for the server's word that it may ask again. Prints what came as one JSON object.
import { createInterface } from "node:readline";

const { command, args, era } = JSON.parse(process.argv[2]);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const line = async () => (await lines.next()).value;
const about = { name: "shows-pages", version: "1" };
const capabilities = { elicitation: { url: {} } };
const shown = [];
const show = ({ mode, url, message, elicitationId }) => {
  shown.push({ mode, url, message, elicitationId });
  console.error(`open ${url}`);
};

async function older() {
  const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
  const { StdioClientTransport } = await import("@modelcontextprotocol/sdk/client/stdio.js");
  const { ElicitationCompleteNotificationSchema, UrlElicitationRequiredError } = await import("@modelcontextprotocol/sdk/types.js");
  const client = new Client(about, { capabilities });
  const completed = new Promise((done) =>
    client.setNotificationHandler(ElicitationCompleteNotificationSchema, ({ params }) => done(params.elicitationId)));
  await client.connect(new StdioClientTransport({ command, args, env: process.env, stderr: "inherit" }));
  const first = await client.callTool({ name: "t" });
  console.error("called");
  await line();
  const second = await client.callTool({ name: "t" }).catch(async (error) => {
    if (!(error instanceof UrlElicitationRequiredError)) throw error;
    error.elicitations.forEach(show);
    const id = await completed;
    if (id !== shown[0].elicitationId) throw new Error(`another elicitation is complete: ${id}`);
    return client.callTool({ name: "t" });
  });
  await client.close();
  return { first, second };
}

async function newer() {
  const { Client } = await import("@modelcontextprotocol/client");
  const { StdioClientTransport } = await import("@modelcontextprotocol/client/stdio");
  const client = new Client(about, { capabilities, versionNegotiation: { mode: { pin: era } } });
  client.setRequestHandler("elicitation/create", async ({ params }) => {
    show(params);
    return { action: (await line()) === "no" ? "decline" : "accept" };
  });
  await client.connect(new StdioClientTransport({ command, args, env: process.env, stderr: "inherit" }));
  const call = () => client.callTool({ name: "t" }).catch(({ code, message, data }) => ({ error: { code, message, data } }));
  const first = await call();
  console.error("called");
  await line();
  const second = await call();
  await client.close();
  return { first, second };
}

const { first, second } = await (era < "2026" ? older() : newer());
console.log(JSON.stringify({ first, second, shown }));
process.exit(0);
