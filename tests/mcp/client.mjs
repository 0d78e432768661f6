// The official TypeScript SDK as a client of an MCP server, for tests/tests/model_server.rs.
//
//   node client.mjs '{"command": PROGRAM, "args": [...]}'        over stdio
//   node client.mjs '{"url": URL}'                               over HTTP, with the token on the first line of stdin
//
// Lists the tools, calls each of the model server's, and prints what came as one JSON object. Its "model" repeats what it is asked.
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CreateMessageRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const { url, command, args = [] } = JSON.parse(process.argv[2]);

const firstLine = async () => {
  for await (const line of createInterface({ input: process.stdin })) return line;
};
const transport = url
  ? new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { authorization: `Bearer ${await firstLine()}` } } })
  : new StdioClientTransport({ command, args, env: process.env, stderr: "inherit" });

const client = new Client({ name: "typescript-sdk", version: "1.0.0" }, { capabilities: { sampling: {} } });
client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => ({
  model: "echo",
  role: "assistant",
  content: { type: "text", text: `${params.maxTokens}: ${params.messages[0].content.text}` },
}));

const call = (name, args) =>
  client.callTool({ name, arguments: args }).catch(({ code, message, data }) => ({ error: { code, message, data } }));

await client.connect(transport);
const tools = (await client.listTools()).tools.map((tool) => tool.name).sort();
const answers = {};
if (tools.includes("get_github_user_info")) {
  answers.user = await call("get_github_user_info", { include_repos: true, repo_limit: 3 });
}
if (tools.includes("analyze_code_with_llm")) {
  answers.analysis = await call("analyze_code_with_llm", { code: "fn main() {}", analysis_type: "security", max_tokens: 77 });
}
console.log(JSON.stringify({ tools, ...answers }));
await client.close();
process.exit(0);
