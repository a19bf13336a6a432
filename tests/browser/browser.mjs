// What the scenarios have in common: a browser, people in it, and what every page keeps.
import { createRequire } from "node:module";
import { accessSync, readFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { delimiter, join } from "node:path";
import assert from "node:assert/strict";

export { assert };
/** What the test tells: the node's address, the set-up link, the password, folders. */
export const told = JSON.parse(process.env.CALLBOARD_BROWSER_TEST);
const require = createRequire(join(told.tools, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const there = (path) => { try { accessSync(path); return true; } catch { return false; } };
const program = ["chromium", "google-chrome", "chromium-browser"]
  .flatMap((name) => process.env.PATH.split(delimiter).map((folder) => join(folder, name))).find(there);

export const open = async (scenario) => {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  const browser = await chromium.launch({ executablePath: program, headless: true, args });
  try {
    await scenario(browser);
  } finally {
    await browser.close();
  }
};

/** Errors of pages, which none may have. */
const errors = [];
export const noErrors = () => assert.deepEqual(errors, [], "a page reported an error");

/** A person with a browser of their own. */
export const person = async (browser, options = {}) => {
  const context = await browser.newContext({ baseURL: told.origin, viewport: { width: 1280, height: 860 }, ...options });
  context.setDefaultTimeout(40_000);
  const page = await context.newPage();
  page.on("pageerror", (error) => errors.push(`${page.url()}: ${error.message}`));
  page.on("console", (message) => {
    // Refused requests are part of the scenarios; violations of the policy and errors of scripts are not.
    if (message.type() === "error" && !/Failed to load resource|net::ERR|WebSocket connection/.test(message.text())) errors.push(`${page.url()}: ${message.text()}`);
  });
  return page;
};

export const signIn = async (page, email = "admin@example.com") => {
  await page.goto("/sign-in");
  await page.fill("[name=email]", email);
  await page.fill("[name=password]", told.password);
  await page.click("button");
  await page.waitForURL("/");
};

/** A way to the node that can be cut, as when a machine sleeps: whoever connects meanwhile is turned away. */
export const line = async () => {
  const node = Number(new URL(told.origin).port), open = new Set();
  let isCut = false;
  const server = createServer((near) => {
    if (isCut) return void near.destroy();
    const far = connect(node, "127.0.0.1");
    for (const [one, other] of [[near, far], [far, near]]) {
      open.add(one);
      one.pipe(other);
      one.on("error", () => {});
      one.on("close", () => { open.delete(one); other.destroy(); });
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    cut() { isCut = true; for (const socket of open) socket.destroy(); },
    mend() { isCut = false; },
    close() { this.cut(); server.close(); },
  };
};

let shots = 0;
/** Nothing serious for who can't see or use a mouse, and nothing beyond the edge of the window. */
export const keeps = async (page, label, rules) => {
  if (told.shots) await page.screenshot({ path: join(told.shots, `${String(++shots).padStart(2, "0")}-${label}.png`), fullPage: true });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `${label}: ${wide} pixels wider than the window`);
  await page.evaluate(axe);
  const runOnly = rules ?? ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"];
  const { violations } = await page.evaluate((only) => window.axe.run(document, { runOnly: only, resultTypes: ["violations"], elementRef: false }), runOnly);
  const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const sentences = serious.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html} ${failureSummary}`).join("; ")}`);
  assert.deepEqual(sentences, [], label);
};

/** Asks the API as the person of this page. */
export const api = async (page, method, path, data) => {
  const answer = await page.request.fetch(`/api/v1${path}`, { method, data, headers: { "Sec-Fetch-Site": "same-origin", Origin: told.origin } });
  const text = await answer.text();
  assert.ok(answer.ok(), `${method} ${path}: ${answer.status()} ${text}`);
  return text && JSON.parse(text);
};

/** Drops files or folders of this machine on an element, as a hand would. */
export const drop = async (page, selector, files) => {
  const element = page.locator(selector);
  await element.scrollIntoViewIfNeeded();
  const box = await element.boundingBox(), at = { x: box.x + box.width / 2, y: box.y + box.height / 2 };
  const session = await page.context().newCDPSession(page);
  const data = { items: [], files, dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "drop"]) await session.send("Input.dispatchDragEvent", { type, ...at, data });
};

/** Waits until a deployment's page says how it ended. */
export const deployed = async (page, status = "completed") => {
  await page.locator(`[data-part=deployment] .status.${status}`).waitFor();
};
