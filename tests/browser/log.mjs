// A log of 100,000 lines scrolls, and a laptop that slept catches up.
import { assert, deployed, keeps, line, noErrors, open, person, signIn, told } from "./browser.mjs";

const LINES = 100_000;

await open(async (browser) => {
  const page = await person(browser);
  await signIn(page);
  // More lines than the node keeps of one deployment, told as the node tells them.
  // The first time the node has no time for it, and the log is read all the same.
  let isBusy = true;
  await page.route("**/api/v1/deployments/*/logs?*", (route) => {
    if (isBusy) {
      isBusy = false;
      return route.fulfill({ status: 503, json: { detail: "overloaded" } });
    }
    const query = new URL(route.request().url()).searchParams, after = Number(query.get("after")), limit = Number(query.get("limit"));
    const lineOf = (id) => ({ id, at: new Date(id * 10).toISOString(), from: "build", text: id % 1000 ? `\x1b[32mline\x1b[0m ${id}` : `ERROR: line ${id}` });
    const count = Math.max(0, Math.min(limit, LINES - after));
    return route.fulfill({ json: { items: Array.from({ length: count }, (_, index) => lineOf(after + index + 1)) } });
  });
  await page.goto(`/apps/long/deployments/${told.deployment}`);
  await deployed(page);
  const lines = page.locator(".log-lines"), began = Date.now();
  await page.waitForFunction(() => /^100.000 lines$/.test(document.querySelector("[data-log-count]").textContent));
  console.log(`100,000 lines were there after ${Date.now() - began} ms`);
  assert.ok(await lines.locator(".line").count() < 200, "only the lines in view are in the page");
  // From one end to the other, and how long each picture took on the way.
  const slowest = await page.evaluate(async () => {
    const view = document.querySelector(".log-lines"), frame = () => new Promise(requestAnimationFrame), took = [];
    for (let step = 0; step <= 60; step++) {
      const began = performance.now();
      view.scrollTop = (view.scrollHeight - view.clientHeight) * step / 60;
      await frame();
      await frame();
      took.push(performance.now() - began);
    }
    return took.sort((one, other) => one - other)[Math.floor(took.length * 0.9)];
  });
  assert.ok(slowest < 500, `nine of ten scrolls take at most ${slowest} ms`);
  console.log(`scrolling: nine of ten within ${slowest.toFixed(0)} ms`);
  await page.fill("[data-log-search]", "line 77777");
  await page.keyboard.press("Enter");
  await lines.locator(".line.at", { hasText: "line 77777" }).waitFor();
  await keeps(page, "long-log");
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "Download" }).click()]);
  let text = "";
  for await (const chunk of await download.createReadStream()) text += chunk;
  assert.match(text, /^\d{4}-\d\d-\d\dT\S+ build -----> Unpacking the source\n/);

  // Asleep while the app gets another instance: both pages come back to how it is.
  const way = await line(), options = { baseURL: way.origin };
  const logs = await person(browser, options), overview = await person(browser, options);
  for (const sleeper of [logs, overview]) await signIn(sleeper);
  await logs.goto("/apps/long/logs");
  await logs.locator("[data-log-state]", { hasText: "live" }).waitFor();
  await overview.goto("/apps/long");
  await overview.getByText("1 of 1 healthy").waitFor();
  way.cut();
  await logs.locator("[data-log-state]", { hasText: "connecting again" }).waitFor();
  await page.goto("/apps/long");
  await page.getByRole("button", { name: "One instance of web more" }).click();
  await page.getByText("2 of 2 healthy").waitFor();
  way.mend();
  await overview.getByText("2 of 2 healthy").waitFor();
  await logs.locator(".log-lines .line", { hasText: "web.2" }).first().waitFor();
  await logs.locator("[data-log-state]", { hasText: "live" }).waitFor();
  noErrors();
  way.close();
});
