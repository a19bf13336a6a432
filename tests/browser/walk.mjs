// Somebody who never opens a terminal: from the set-up link to an app that is gone again.
import { assert, deployed, drop, keeps, noErrors, open, person, told } from "./browser.mjs";

await open(async (browser) => {
  const page = await person(browser);
  await page.goto(told.setup);
  await keeps(page, "set-up");
  await page.fill("[name=name]", "Ada");
  await page.fill("[name=email]", "admin@example.com");
  await page.fill("[name=password]", told.password);
  await page.click("button");
  await page.waitForURL("/");
  await page.getByRole("heading", { name: "Start here" }).waitFor();
  await keeps(page, "first-steps");

  // A new app: its folder is dropped, and packed by the browser.
  await page.getByRole("link", { name: "New app" }).click();
  await keeps(page, "new-app");
  await drop(page, "[data-drop]", [told.app]);
  await page.getByText(/packed, \d+ files; left out: node_modules/).waitFor();
  assert.equal(await page.inputValue("[name=name]"), "shop");
  await page.getByRole("button", { name: "Deploy" }).click();
  await page.waitForURL("**/apps/shop/deployments/*");
  await page.locator(".log-lines .line").first().waitFor();
  await deployed(page);
  await page.locator("[data-log-state]", { hasText: "ended" }).waitFor();
  assert.match(await page.locator(".log-lines").innerText(), /web/);
  await keeps(page, "deployment");

  const popup = page.waitForEvent("popup");
  await page.getByRole("link", { name: "Open the app" }).click();
  const opened = await popup;
  await opened.waitForLoadState();
  assert.match(await opened.innerText("body"), /^one -/);
  await opened.close();

  // A variable, and a restart that uses it.
  await page.getByRole("link", { name: "Variables" }).click();
  await page.locator("[name='name.0']").fill("GREETING");
  await page.locator("[name='value.0']").fill("hello");
  await page.locator("[name='secret.0']").uncheck();
  await page.locator("[name='name.1']").fill("TOKEN");
  await page.locator("[name='value.1']").fill("s3cret");
  await keeps(page, "variables-typed");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved 2 variables, as version 1.").waitFor();
  assert.ok(!(await page.content()).includes("s3cret"), "a secret is not shown again");
  await keeps(page, "variables");
  await page.getByRole("button", { name: "Restart to use them" }).click();
  await page.waitForURL("**/apps/shop/deployments/*");
  await deployed(page);
  // Node.js does not know that names below localhost are this machine.
  const answer = async () => (await page.request.get(told.origin, { headers: { Host: "shop.localhost" } })).text();
  assert.match(await answer(), /^one hello/);
  await page.getByRole("link", { name: "Variables" }).click();
  await page.getByText("Version 1.").waitFor();
  assert.equal(await page.getByText("runs with earlier variables").count(), 0, "a restart uses them");

  // A second version of the source, and the way back.
  await page.getByRole("link", { name: "Overview" }).click();
  await page.locator("[data-part=instances] .status.healthy").first().waitFor();
  await keeps(page, "overview");
  await page.getByRole("link", { name: "Deploy", exact: true }).click();
  await drop(page, "[data-drop]", [told.second]);
  await page.getByText(/packed/).waitFor();
  await page.getByRole("button", { name: "Deploy" }).click();
  await page.waitForURL("**/apps/shop/deployments/*");
  await deployed(page);
  assert.match(await answer(), /^two hello/);
  await page.getByRole("link", { name: "Releases" }).click();
  await page.getByRole("heading", { name: "v2" }).waitFor();
  await keeps(page, "releases");
  await page.getByRole("link", { name: "Roll back to v1" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("v2 stops serving once v1 is healthy").waitFor();
  await dialog.getByText("GREETING is not set any more").waitFor();
  await keeps(page, "roll-back");
  await dialog.getByRole("button", { name: "Roll back" }).click();
  await page.waitForURL("**/apps/shop/deployments/*");
  await deployed(page);
  assert.match(await answer(), /^one -/);

  // One instance more, and what they write.
  await page.getByRole("link", { name: "Overview" }).click();
  await page.getByRole("button", { name: "One instance of web more" }).click();
  await page.getByText("2 instances of web are wanted.").waitFor();
  await page.getByText("2 of 2 healthy").waitFor();
  await page.getByRole("link", { name: "Logs" }).click();
  await page.locator(".log-lines .line", { hasText: "web.2" }).first().waitFor();
  await page.selectOption("[name=from]", "web.2");
  await page.waitForFunction(() => [...document.querySelectorAll(".log-lines .from")].every(({ textContent }) => textContent === "web.2"));
  await keeps(page, "logs");

  await page.getByRole("link", { name: "Deployments" }).click();
  await page.locator("figure.chart").waitFor();
  await keeps(page, "deployments");
  await page.goto("/");
  await keeps(page, "apps");
  await page.goto("/apps/shop/settings");
  await keeps(page, "settings");
  await page.getByRole("link", { name: "Delete" }).click();
  await page.getByRole("dialog").getByText("Every release").waitFor();
  await keeps(page, "delete");
  await page.getByLabel("Type shop to go on").fill("shop");
  await page.getByRole("button", { name: "Delete the app" }).click();
  await page.waitForURL("/");
  await page.getByText(/The app shop is (being )?deleted\./).waitFor();
  noErrors();
});
