// A hostile page in a real browser, on another port of this machine: what it can do to the issuer's pages. Prints what came of
// it as JSON.
//
//   node hostile.mjs AUTHORIZE_URL PENDING       environment: CHROMIUM (default /usr/bin/chromium)

import { createServer } from "node:http";
import { chromium } from "playwright-core";

const [authorize, pending] = process.argv.slice(-2);
const endpoint = authorize.split("?")[0];
const form = (csrf) => `<form method="post" action="${endpoint}"><input name="pending" value="${pending}">
  <input name="csrf" value="${csrf}"><input name="press" value="cancel"></form>`;
const PAGES = {
  "/frame": `<iframe name="framed" src="${authorize.replaceAll("&", "&amp;")}"></iframe>`,
  "/post": `${form("guess")}<script>document.forms[0].submit()</script>`,
  "/read": "<title>read</title>",
};
const server = createServer((request, response) => {
  response.setHeader("content-type", "text/html");
  response.end(PAGES[request.url] ?? "");
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const origin = `http://127.0.0.1:${server.address().port}`;

const { CHROMIUM = "/usr/bin/chromium" } = process.env;
const browser = await chromium.launch({ executablePath: CHROMIUM, headless: true, args: ["--no-sandbox", "--disable-gpu", "--no-first-run"] });
const found = {};
try {
  const knock = async (path) => {
    const page = await browser.newPage();
    const answer = page.waitForResponse((response) => response.url().startsWith(endpoint));
    await page.goto(origin + path, { waitUntil: "commit" });
    const status = (await answer).status();
    await page.waitForLoadState();
    return { page, status };
  };
  const framing = await knock("/frame");
  found.frame_status = framing.status;
  found.frame_text = await framing.page.frame("framed").locator("body").innerText().catch(() => "");
  found.post_status = (await knock("/post")).status;
  const page = await browser.newPage();
  await page.goto(`${origin}/read`);
  const tries = { authorize, token: endpoint.replace("authorize", "token"), keys: endpoint.replace("authorize", "keys") };
  found.read = await page.evaluate(async (tries) => {
    const read = {};
    for (const [name, url] of Object.entries(tries)) {
      read[name] = await fetch(url, { method: name === "token" ? "POST" : "GET" }).then((answer) => answer.text(), () => "refused");
    }
    return read;
  }, tries);
  found.opened = await page.evaluate((url) => {
    const opened = window.open(url);
    return new Promise((done) => setTimeout(() => { try { done(opened.closed || opened.document === null ? "out of reach" : opened.document.body.innerText); } catch { done("out of reach"); } }, 1500));
  }, authorize);
} finally {
  await browser.close();
  server.close();
}
console.log(JSON.stringify(found));
