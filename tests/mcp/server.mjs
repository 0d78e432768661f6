// An MCP server of the official TypeScript SDK behind a login: the SDK's own check of bearer tokens and its metadata of the
// protected resource, and an authorization server of which each token is asked (RFC 7662).
//
//   node server.mjs '{"issuer": ISSUER}'
//
// prints {"url"} when it listens, and ends when its stdin closes. `GET /seen` tells how many requests it let in and how many not.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { InvalidTokenError } from "@modelcontextprotocol/sdk/server/auth/errors.js";
import { requireBearerAuth } from "@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js";
import { getOAuthProtectedResourceMetadataUrl, mcpAuthMetadataRouter } from "@modelcontextprotocol/sdk/server/auth/router.js";
import { createMcpExpressApp } from "@modelcontextprotocol/sdk/server/express.js";
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { CallToolRequestSchema, ListToolsRequestSchema, isInitializeRequest } from "@modelcontextprotocol/sdk/types.js";

const { issuer } = JSON.parse(process.argv[2]);
const SCOPE = "mcp:read";

const whole = (properties) => ({ type: "object", properties, required: Object.keys(properties) });
const tools = [
  { name: "add", inputSchema: whole({ a: { type: "integer" }, b: { type: "integer" } }) },
  { name: "count", inputSchema: whole({ to: { type: "integer" } }) },
  { name: "whoami", inputSchema: whole({}) },
];
const work = {
  add: ({ a, b }) => a + b,
  // Tells of every step, so that its answer is a stream.
  count: async ({ to }, { _meta, sendNotification }) => {
    for (let progress = 1; progress <= to; progress += 1) {
      const params = { progressToken: _meta?.progressToken, progress, total: to };
      if (params.progressToken !== undefined) await sendNotification({ method: "notifications/progress", params });
    }
    return to;
  },
  whoami: (_arguments, { authInfo }) => authInfo.extra.subject,
};

function speaker() {
  const server = new Server({ name: "typescript-sdk", version: "1.0.0" }, { capabilities: { tools: {} } });
  server.setRequestHandler(ListToolsRequestSchema, () => ({ tools }));
  server.setRequestHandler(CallToolRequestSchema, async ({ params }, extra) => ({
    content: [{ type: "text", text: String(await work[params.name](params.arguments ?? {}, extra)) }],
  }));
  return server;
}

const http = createServer();
const port = await new Promise((listens) => http.listen(0, "127.0.0.1", () => listens(http.address().port)));
const url = new URL(`http://127.0.0.1:${port}/mcp`);
const oauthMetadata = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();

const verifier = {
  async verifyAccessToken(token) {
    const body = new URLSearchParams({ client_id: "native", token });
    const told = await (await fetch(oauthMetadata.introspection_endpoint, { method: "POST", body })).json();
    if (!told.active) throw new InvalidTokenError("the authorization server does not know it");
    const { client_id: clientId, scope, exp: expiresAt, aud, sub: subject } = told;
    return { token, clientId, scopes: scope.split(" "), expiresAt, resource: new URL(aud), extra: { subject } };
  },
};

const app = createMcpExpressApp();
const seen = { let_in: 0, kept_out: 0 };
const sessions = new Map();
app.get("/seen", (_request, response) => response.json(seen));
app.use(mcpAuthMetadataRouter({ oauthMetadata, resourceServerUrl: url, scopesSupported: [SCOPE] }));
app.use("/mcp", (_request, response, next) => {
  response.on("finish", () => (seen[response.statusCode === 401 ? "kept_out" : "let_in"] += 1));
  next();
});
const guard = requireBearerAuth({
  verifier,
  requiredScopes: [SCOPE],
  resourceMetadataUrl: getOAuthProtectedResourceMetadataUrl(url),
  expectedResource: url,
});
app.all("/mcp", guard, async (request, response) => {
  let transport = sessions.get(request.headers["mcp-session-id"]);
  if (!transport && isInitializeRequest(request.body)) {
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => void sessions.set(id, transport),
      onsessionclosed: (id) => void sessions.delete(id),
    });
    await speaker().connect(transport);
  }
  if (!transport) return response.status(404).end();
  await transport.handleRequest(request, response, request.body);
});
http.on("request", app);

process.stdin.on("end", () => process.exit(0)).resume();
console.log(JSON.stringify({ url: url.href }));
