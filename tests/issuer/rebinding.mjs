// A hostile page in a real browser, at a name that its owner makes lead to this machine: what it can do to the relay's port,
// though it knows a client's secret. Prints what came of each try as JSON.
//
//   node rebinding.mjs PORT       environment: SECRET (`Bearer ...`), CHROMIUM (default /usr/bin/chromium)

import { createServer } from "node:http";
import { chromium } from "playwright-core";

const port = process.argv.at(-1);
const { CHROMIUM = "/usr/bin/chromium", SECRET } = process.env;
const target = `http://127.0.0.1:${port}/mcp/test`;
const message = '{"jsonrpc":"2.0","id":7,"method":"ping"}';
const server = createServer((_, response) => {
  response.setHeader("content-type", "text/html");
  response.end("<title>evil</title>");
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
// Older browsers, and other ones, do not keep pages away from the local network: this one shall not be what holds.
const OFF = ["LocalNetworkAccessChecks", "BlockInsecurePrivateNetworkRequests", "PrivateNetworkAccessSendPreflights",
  "PrivateNetworkAccessRespectPreflightResults"];
const ARGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", `--disable-features=${OFF.join()}`,
  "--host-resolver-rules=MAP evil.example 127.0.0.1"];
const browser = await chromium.launch({ executablePath: CHROMIUM, headless: true, args: ARGS });
const found = {};

// What `fetch` brings in this page.
const tried = (page, url, init) =>
  page.evaluate(([url, init]) =>
    fetch(url, init).then(async (answer) => `${answer.status} ${answer.type} ${await answer.text()}`, (error) => `failed: ${error}`), [url, init]);

try {
  // A page of another origin.
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const asks = {
    "simple post": { method: "POST", body: message, headers: { "content-type": "text/plain" } },
    "opaque post": { method: "POST", body: message, mode: "no-cors" },
    "post with the secret": { method: "POST", body: message, headers: { authorization: SECRET } },
    "post as a client": { method: "POST", body: message, headers: { authorization: SECRET, "content-type": "application/json" } },
    "get with the secret": { headers: { authorization: SECRET } },
    "opaque get": { mode: "no-cors" },
  };
  for (const [name, init] of Object.entries(asks)) found[name] = await tried(page, target, init);
  found["a form"] = await page.evaluate(async ([target, message]) => {
    const frame = document.body.appendChild(Object.assign(document.createElement("iframe"), { name: "f" }));
    const form = Object.assign(document.createElement("form"), { method: "post", action: target, target: "f", enctype: "text/plain" });
    form.append(Object.assign(document.createElement("input"), { name: message.slice(0, -1), value: "}" }));
    document.body.append(form);
    const done = new Promise((loaded) => frame.addEventListener("load", loaded, { once: true }));
    form.submit();
    await Promise.race([done, new Promise((late) => setTimeout(late, 5000))]);
    try { return frame.contentDocument ? frame.contentDocument.body.innerText : "out of reach"; } catch { return "out of reach"; }
  }, [target, message]);
  // The page's own name leads here now: to the browser the relay's port is the page's own server.
  const rebound = await browser.newPage();
  const own = `http://evil.example:${port}`;
  await rebound.route(`${own}/page`, (route) => route.fulfill({ status: 200, contentType: "text/html", body: "<title>evil</title>" }));
  await rebound.goto(`${own}/page`);
  found["rebound post"] = await tried(rebound, `${own}/mcp/test`, asks["post as a client"]);
  found["rebound get"] = await tried(rebound, `${own}/mcp/test`, asks["get with the secret"]);
  found["rebound metadata"] = await tried(rebound, `${own}/.well-known/oauth-protected-resource`, {});
  const typed = await browser.newPage();
  const response = await typed.goto(`http://localhost:${port}/mcp/test`);
  found["typed into the address bar"] = `${response.status()} ${await response.text()}`;
} finally {
  await browser.close();
  server.close();
}
console.log(JSON.stringify(found));
