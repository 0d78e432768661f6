// An MCP server that takes tokens which are bound to a key (RFC 9449), and no others. Each request must bring a proof of its own;
// whose token it is, and which key it is bound to, the authorization server tells (RFC 7662).
//
//   node resource.mjs '{"issuer": URL, "demand": "metadata" | "challenge"}'
//
// prints one JSON line {"url", "control"} when it is ready, and ends when its stdin closes. `demand`: where it says that it wants
// such tokens. `/mcp` is the server, `/old` leads there by 307. The control port:
//
//   GET  /_test/seen                    what came
//   POST /_test/set {"nonce": TEXT}     wants this nonce from now on (null: none)
//   POST /_test/set {"reject": true}    takes no token (false: those that are good)

import { createHash } from "node:crypto";
import http from "node:http";
import { EmbeddedJWK, calculateJwkThumbprint, jwtVerify } from "jose";

const { issuer, demand = "metadata" } = JSON.parse(process.argv[2]);
const listen = (server) => new Promise((done) => server.listen(0, "127.0.0.1", () => done(server.address().port)));
const wishes = { nonce: null, reject: false };
const seen = { good: 0, methods: {}, refused: {}, keys: [], tokens: [], proofs: new Set() };

class Refusal extends Error {
  constructor(code, reason) {
    super(reason);
    this.code = code;
  }
}

function must(holds, code, reason) {
  if (!holds) throw new Refusal(code, reason);
}

async function text(request) {
  let body = "";
  for await (const chunk of request) body += chunk;
  return body;
}

/** Whether the authorization server knows the token, and the key that it is bound to. */
async function introspect(token) {
  const answer = await fetch(`${issuer}/token/introspection`, { method: "POST", body: new URLSearchParams({ client_id: "native", token }) });
  return answer.json();
}

/** Section 4.3, point by point. */
async function prove(request, url) {
  const [scheme, token] = (request.headers.authorization ?? "").split(" ");
  must(scheme !== "", null, "no token");
  must(scheme === "DPoP", "invalid_token", `scheme ${scheme}`);
  const proofs = request.rawHeaders.filter((name, at) => at % 2 === 0 && name.toLowerCase() === "dpop");
  must(proofs.length === 1, "invalid_dpop_proof", `${proofs.length} proofs`);
  const { payload, protectedHeader } = await jwtVerify(request.headers.dpop, EmbeddedJWK, { algorithms: ["ES256"], typ: "dpop+jwt" }).catch((error) => {
    throw new Refusal("invalid_dpop_proof", error.code);
  });
  must(Object.keys(protectedHeader.jwk).sort().join() === "crv,kty,x,y", "invalid_dpop_proof", "private jwk");
  must(payload.htm === request.method, "invalid_dpop_proof", "htm");
  must(payload.htu === `${url}${request.url.split("?")[0]}`, "invalid_dpop_proof", `htu ${payload.htu}`);
  must(Math.abs(Date.now() / 1000 - payload.iat) < 60, "invalid_dpop_proof", "iat");
  must(payload.ath === createHash("sha256").update(token).digest("base64url"), "invalid_dpop_proof", "ath");
  must(typeof payload.jti === "string" && !seen.proofs.has(payload.jti), "invalid_dpop_proof", "jti");
  seen.proofs.add(payload.jti);
  must((payload.nonce ?? null) === wishes.nonce, "use_dpop_nonce", "nonce");
  const { active, token_type, cnf, aud } = await introspect(token);
  must(active && !wishes.reject, "invalid_token", "token");
  must(token_type === "DPoP" && [aud].flat().some((one) => one.startsWith(url)), "invalid_token", "another's token");
  const key = await calculateJwkThumbprint(protectedHeader.jwk);
  must(cnf.jkt === key, "invalid_token", "another key");
  return { key, token: createHash("sha256").update(token).digest("hex").slice(0, 8) };
}

function metadata(url, path) {
  const document = { resource: `${url}/${path}`, authorization_servers: [issuer], scopes_supported: ["mcp:read"] };
  return demand === "metadata" ? { ...document, dpop_bound_access_tokens_required: true } : document;
}

function refuse(response, { code, message }, url) {
  seen.refused[message] = (seen.refused[message] ?? 0) + 1;
  const scheme = code === null && demand === "metadata" ? "Bearer" : "DPoP";
  const said = [`resource_metadata="${url}/.well-known/oauth-protected-resource/mcp"`, ...(code === null ? [] : [`error="${code}"`])];
  response.setHeader("www-authenticate", `${scheme} ${said.join(", ")}`);
  if (code === "use_dpop_nonce") response.setHeader("dpop-nonce", wishes.nonce ?? "");
  response.writeHead(401).end();
}

async function serve(request, response, url) {
  const [path] = request.url.split("?");
  const described = /^\/\.well-known\/oauth-protected-resource\/(mcp|old)$/.exec(path);
  if (described) return response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(metadata(url, described[1])));
  if (path !== "/mcp" && path !== "/old") return response.writeHead(404).end();
  const proved = await prove(request, url).catch((error) => error);
  if (proved instanceof Error) return refuse(response, proved, url);
  if (path === "/old") return response.writeHead(307, { location: "/mcp" }).end();
  seen.good += 1;
  seen.methods[request.method] = (seen.methods[request.method] ?? 0) + 1;
  if (!seen.keys.includes(proved.key)) seen.keys.push(proved.key);
  if (!seen.tokens.includes(proved.token)) seen.tokens.push(proved.token);
  if (request.method !== "POST") return response.writeHead(request.method === "GET" ? 405 : 200).end();
  const { id, method } = JSON.parse(await text(request));
  if (id === undefined) return response.writeHead(202).end();
  const said = { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: { name: "bound", version: "1" } };
  const result = method === "initialize" ? said : method === "tools/list" ? { tools: [] } : {};
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ jsonrpc: "2.0", id, result }));
}

let url;
const server = http.createServer((request, response) => {
  serve(request, response, url).catch((error) => {
    console.error(error);
    response.writeHead(500).end();
  });
});
url = `http://127.0.0.1:${await listen(server)}`;

const control = http.createServer(async (request, response) => {
  if (request.method === "POST") Object.assign(wishes, JSON.parse(await text(request)));
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ ...seen, proofs: seen.proofs.size }));
});
process.stdin.on("end", () => process.exit(0)).on("error", () => process.exit(0)).resume();
console.log(JSON.stringify({ url, control: await listen(control) }));
