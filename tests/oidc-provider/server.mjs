// The real authorization server of the end-to-end tests: npm oidc-provider on a free loopback port.
//
//   node server.mjs '{"access_ttl": 5, "refresh_ttl": 86400, "port": 0}'
//
// prints one JSON line {"issuer", "port", "control", "pid"} when it is ready, and ends when its stdin closes, so that a
// killed test leaves no orphan. The control port is another one, so that a test can close the server's own port:
//
//   GET  /_test/counters               what the server saw (observe.mjs)
//   POST /_test/reset                  counters to zero, faults gone
//   POST /_test/ttl {"access": 5}      lifetimes of tokens issued from now on
//   POST /_test/nonces {"wanted": true}   proofs must carry its nonce (RFC 9449)
//   POST /_test/delay {"token_ms": n, "revocation_ms": n}   every such answer comes n ms late
//   POST /_test/down {"on": true, "mode": "503" | "reset" | "closed"}   closed: connection refused
//   POST /_test/html {"path"?}         a captive portal's page instead of JSON
//   POST /_test/answer-200-error {"error"?}   200 with an OAuth error in the body
//   POST /_test/trust {"issuer", "jwks"?}  its JWTs are taken as assertions; without keys they are at its /jwks
//   POST /_test/lie {"aud": ..., ...}  ID-JAGs say this instead
//   POST /_test/answer {path, times, status, type, body, headers, drop}   any other canned answer

import http from "node:http";
import { Provider } from "oidc-provider";
import { lie, teach, trust } from "./assertions.mjs";
import { configuration, markTokens, signingKey } from "./configuration.mjs";
import { Observer } from "./observe.mjs";

const PORTAL = "<!doctype html><html><title>Welcome to the Wi-Fi</title><body>Please sign in</body></html>";

// stdout holds the one line that says ready; its reader may be gone when the provider has something to remark.
const sayReady = console.log;
console.log = console.info = console.error;

const options = { access_ttl: 300, refresh_ttl: 14 * 86400, port: 0, ...JSON.parse(process.argv[2] ?? process.env.OIDC_PROVIDER_OPTIONS ?? "{}") };
const ttl = { access: options.access_ttl, refresh: options.refresh_ttl, id: 3600 };
const nonces = { wanted: false };
const observer = new Observer();

const listen = (server, port) => new Promise((done, failed) => server.once("error", failed).listen(port, "127.0.0.1", () => done(server.address().port)));

const server = http.createServer();
const port = await listen(server, options.port);
const issuer = `http://127.0.0.1:${port}`;

const key = signingKey();
const provider = new Provider(issuer, configuration(ttl, nonces, key));
teach(provider, ttl, key);
markTokens(provider);
provider.on("grant.error", (_ctx, error) => observer.sawGrantError(error));
provider.on("server_error", (_ctx, error) => console.error(error));
provider.use(observer.middleware());
server.on("request", provider.callback());

async function down({ on = true, mode = "503" }) {
  observer.faults.answers = observer.faults.answers.filter((canned) => !canned.outage);
  if (mode === "closed" && on) {
    server.close();
    server.closeAllConnections();
  } else if (!on && !server.listening) {
    await listen(server, port);
  } else if (on && mode === "reset") {
    observer.answer({ outage: true, path: "*", drop: "before" });
  } else if (on) {
    observer.answer({ outage: true, path: "*", status: 503, body: { error: "temporarily_unavailable" } });
  }
}

const commands = {
  "/_test/counters": async () => {},
  "/_test/reset": async () => observer.reset(),
  "/_test/ttl": async (wanted) => Object.assign(ttl, wanted),
  "/_test/nonces": async ({ wanted = true }) => (nonces.wanted = wanted),
  "/_test/delay": async (delays) => Object.assign(observer.faults, delays),
  "/_test/down": down,
  "/_test/html": async ({ path = "/token", times }) => observer.answer({ path, type: "text/html", body: PORTAL, ...(times && { times }) }),
  "/_test/answer-200-error": async ({ error = "bad_refresh_token", ...rest }) =>
    observer.answer({ ...rest, body: { error, error_description: "the server says so" } }),
  "/_test/trust": async (whom) => trust(whom),
  "/_test/lie": async (claims) => lie(claims),
  "/_test/answer": async (canned) => observer.answer(canned),
};

async function body(request) {
  let text = "";
  for await (const chunk of request) text += chunk;
  return text === "" ? {} : JSON.parse(text);
}

const control = http.createServer(async (request, response) => {
  const command = commands[request.url];
  if (!command) return response.writeHead(404).end();
  try {
    await command(await body(request));
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(observer.counters));
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
});
const controlPort = await listen(control, 0);

process.stdin.on("end", () => process.exit(0)).on("error", () => process.exit(0)).resume();
sayReady(JSON.stringify({ issuer, port, control: controlPort, pid: process.pid }));
