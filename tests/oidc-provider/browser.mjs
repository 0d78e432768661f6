// A real browser in a person's place: opens the URL in headless Chromium, logs in, consents, waits for the page on the
// loopback redirect and keeps a picture of it.
//
//   node browser.mjs URL        environment: SCREENSHOT (where the picture goes), LOGIN_AS (default alice),
//                               ANSWER=no (the person cancels), CHROMIUM (default /usr/bin/chromium)

import { chromium } from "playwright-core";

const ARGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const PATIENCE = 30_000;
const { SCREENSHOT, LOGIN_AS = "alice", ANSWER = "yes", CHROMIUM = "/usr/bin/chromium" } = process.env;

const isEnd = (url) => new URL(url).pathname === "/callback" && new URL(url).hostname === "127.0.0.1";

async function answerPages(page) {
  for (let pages = 0; pages < 4 && !isEnd(page.url()); pages += 1) {
    const before = page.url();
    if (ANSWER === "no") {
      await page.getByRole("link", { name: /cancel/i }).click();
    } else if ((await page.locator('input[name="login"]').count()) > 0) {
      await page.fill('input[name="login"]', LOGIN_AS);
      await page.fill('input[name="password"]', "any password will do");
      await page.click('button[type="submit"]');
    } else {
      await page.click('button[type="submit"]');
    }
    await page.waitForURL((found) => found.href !== before);
  }
}

const url = process.argv.at(-1);
const browser = await chromium.launch({ executablePath: CHROMIUM, headless: true, args: ARGS, timeout: PATIENCE });
try {
  const page = await browser.newPage({ viewport: { width: 900, height: 600 } });
  page.setDefaultTimeout(PATIENCE);
  await page.goto(url);
  await answerPages(page);
  await page.waitForURL((found) => isEnd(found.href));
  if (SCREENSHOT) await page.screenshot({ path: SCREENSHOT });
  console.log(JSON.stringify({ title: await page.title(), text: (await page.innerText("body")).trim() }));
} finally {
  await browser.close();
}
