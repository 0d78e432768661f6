// The official TypeScript SDK as a client of an MCP server.
//
//   node client.mjs '{"command": PROGRAM, "args": [...]}'        over stdio
//   node client.mjs '{"url": URL}'                               over HTTP, with the token on the first line of stdin
//   node client.mjs '{"url": URL, "client_id": ID, "redirect_uri": URI}'
//     over HTTP with a login: it prints `open AUTHORIZATION_URL` to stderr, and reads from stdin where the browser was sent
//
// Lists the tools, calls each of the model server's and what `"calls": [{"name", "arguments"}]` asks for besides, and prints what
// came as one JSON object, with the number of steps that were told on the way. Its "model" repeats what it is asked.
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CreateMessageRequestSchema, ProgressNotificationSchema } from "@modelcontextprotocol/sdk/types.js";

const { url, client_id, redirect_uri, command, args = [], calls = [] } = JSON.parse(process.argv[2]);

const firstLine = async () => {
  for await (const line of createInterface({ input: process.stdin })) return line;
};
const kept = {};
const login = {
  redirectUrl: redirect_uri,
  clientMetadata: { redirect_uris: [redirect_uri] },
  state: () => (kept.state = randomUUID()),
  clientInformation: () => ({ client_id }),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => { kept.tokens = tokens; },
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => { kept.verifier = verifier; },
  redirectToAuthorization: (page) => console.error(`open ${page}`),
};
const overHttp = (options) => new StreamableHTTPClientTransport(new URL(url), options);
const transport = async () => {
  if (command) return new StdioClientTransport({ command, args, env: process.env, stderr: "inherit" });
  if (client_id) return overHttp({ authProvider: login });
  return overHttp({ requestInit: { headers: { authorization: `Bearer ${await firstLine()}` } } });
};

const client = new Client({ name: "typescript-sdk", version: "1.0.0" }, { capabilities: { sampling: {} } });
client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => ({
  model: "echo",
  role: "assistant",
  content: { type: "text", text: `${params.maxTokens}: ${params.messages[0].content.text}` },
}));

const call = (name, args, options) =>
  client.callTool({ name, arguments: args }, undefined, options).catch(({ code, message, data }) => ({ error: { code, message, data } }));

const first = await transport();
await client.connect(first).catch(async (error) => {
  if (!(error instanceof UnauthorizedError)) throw error;
  const { searchParams: redirected } = new URL(await firstLine());
  if (redirected.get("state") !== kept.state) throw new Error("this is the end of another login");
  await first.finishAuth(redirected.get("code"));
  await client.connect(await transport());
});
const tools = (await client.listTools()).tools.map((tool) => tool.name).sort();
const answers = {};
if (tools.includes("get_github_user_info")) {
  answers.user = await call("get_github_user_info", { include_repos: true, repo_limit: 3 });
}
if (tools.includes("analyze_code_with_llm")) {
  answers.analysis = await call("analyze_code_with_llm", { code: "fn main() {}", analysis_type: "security", max_tokens: 77 });
}
const called = [];
let steps = 0;
// Asked for by `onprogress`, counted here: the SDK drops the steps that it reads together with the answer.
client.setNotificationHandler(ProgressNotificationSchema, () => { steps += 1; });
for (const { name, arguments: args } of calls) called.push(await call(name, args, { onprogress: () => {} }));
console.log(JSON.stringify({ tools, ...answers, called, steps }));
await client.close();
process.exit(0);
