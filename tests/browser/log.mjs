// A log of 100,000 lines scrolls, and a laptop that slept catches up.
import { assert, deployed, keeps, noErrors, open, person, signIn, told } from "./browser.mjs";

await open(async (browser) => {
  const page = await person(browser);
  await signIn(page);
  await page.goto(`/apps/long/deployments/${told.deployment}`);
  await deployed(page);
  const lines = page.locator(".log-lines");
  await page.waitForFunction(() => /^1\d\d.\d\d\d lines$/.test(document.querySelector("[data-log-count]").textContent), null, { timeout: 20_000 });
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
  assert.ok(slowest < 200, `nine of ten scrolls take at most ${slowest} ms`);
  console.log(`scrolling: nine of ten within ${slowest.toFixed(0)} ms`);
  await page.fill("[data-log-search]", "line 77777");
  await page.keyboard.press("Enter");
  await lines.locator(".line.at", { hasText: "line 77777" }).waitFor();
  await keeps(page, "long-log");
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "Download" }).click()]);
  const stream = await download.createReadStream();
  let count = 0;
  for await (const chunk of stream) count += chunk.toString().split("\n").length - 1;
  assert.ok(count >= 100_000, `${count} lines were downloaded`);

  // Asleep while the app is restarted: both pages come back to how it is.
  const logs = await person(browser);
  await signIn(logs);
  await logs.goto("/apps/long/logs");
  await logs.locator("[data-log-state]", { hasText: "live" }).waitFor();
  await page.goto("/apps/long");
  await page.getByText("1 of 1 healthy").waitFor();
  for (const sleeper of [logs, page]) await sleeper.context().setOffline(true);
  const awake = await person(browser);
  await signIn(awake);
  await awake.goto("/apps/long");
  await awake.getByRole("button", { name: "One instance of web more" }).click();
  await awake.getByText("2 of 2 healthy").waitFor();
  await awake.request.get(told.visit);
  for (const sleeper of [logs, page]) await sleeper.context().setOffline(false);
  await page.getByText("2 of 2 healthy").waitFor();
  await logs.locator(".log-lines .line", { hasText: "web.2" }).first().waitFor();
  noErrors();
});
