// A real browser in a person's place, at the issuer's pages, with scripts switched off: shows the page, tells its code, and
// waits until it goes on.
//
//   node browser.mjs URL       environment: CODE_FILE (where the code goes), PICTURES (a folder for pictures of the pages),
//                              PRESS=continue (the button is pressed once GO_FILE is there; else the page goes on by itself)
//                              PRESS=cancel, CHROMIUM (default /usr/bin/chromium)

import { existsSync, renameSync, writeFileSync } from "node:fs";
import { setTimeout as rest } from "node:timers/promises";
import { chromium } from "playwright-core";

const ARGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const PATIENCE = 60_000;
const { CODE_FILE, GO_FILE, PICTURES, PRESS, CHROMIUM = "/usr/bin/chromium" } = process.env;
const LOOKS = [
  { name: "light", colorScheme: "light", viewport: { width: 900, height: 800 } },
  { name: "dark", colorScheme: "dark", viewport: { width: 900, height: 800 } },
  { name: "phone", colorScheme: "light", viewport: { width: 360, height: 740 } },
  { name: "phone-dark", colorScheme: "dark", viewport: { width: 360, height: 740 } },
];

// What the server sent, header and all, once in each look, and without going on by itself.
async function pictures(browser, name, { headers, html }) {
  if (!PICTURES) return;
  const body = html.replace(/<meta http-equiv="refresh"[^>]*>/, "");
  for (const look of LOOKS) {
    const context = await browser.newContext(look);
    await context.route("**", (route) => route.fulfill({ status: 200, headers, body }));
    const page = await context.newPage();
    await page.goto(url);
    await page.screenshot({ path: `${PICTURES}/${name}-${look.name}.png`, fullPage: true });
    const [wide, styled] = await page.evaluate(() => [
      document.documentElement.scrollWidth > innerWidth, getComputedStyle(document.querySelector("main")).maxWidth !== "none",
    ]);
    if (wide || !styled) throw new Error(`${name}, ${look.name}: ${wide ? "wider than the window" : "without its style"}`);
    await context.close();
  }
}

const sent = async (response) => ({ headers: response.headers(), html: await response.text() });

const url = process.argv.at(-1);
const browser = await chromium.launch({ executablePath: CHROMIUM, headless: true, args: ARGS, timeout: PATIENCE });
try {
  const context = await browser.newContext({ javaScriptEnabled: false });
  // A browser that is told not to reload pages by itself: the buttons are there for it.
  if (PRESS) await context.route(/\?pending=/, (route) => route.fulfill({ status: 204 }));
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  let done;
  page.on("response", (response) => {
    if (response.request().method() === "POST") done ??= sent(response).catch(() => undefined);
  });
  const response = await page.goto(url);
  if (response.status() >= 400) {
    await pictures(browser, "error", await sent(response));
    console.log(JSON.stringify({ status: response.status(), text: await page.innerText("main") }));
  } else {
    // Before the page asks by itself: Playwright looks at nothing while a page is on its way.
    const code = await page.innerText(".command b");
    await pictures(browser, "consent", await sent(response));
    writeFileSync(`${CODE_FILE}.new`, code);
    renameSync(`${CODE_FILE}.new`, CODE_FILE);
    if (PRESS === "cancel") await page.getByRole("button", { name: "Cancel" }).click();
    if (PRESS === "continue") {
      while (!existsSync(GO_FILE)) await rest(20);
      await page.getByRole("button", { name: "Continue" }).click();
    }
    await page.waitForURL((found) => found.pathname === "/callback");
    const last = await done;
    if (last) await pictures(browser, "done", last);
    console.log(JSON.stringify({ url: page.url().split("?")[0], title: await page.title() }));
  }
} finally {
  await browser.close();
}
