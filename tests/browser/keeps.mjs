// What every page keeps: widths, dark and light, the keyboard, no script, and a session that ends.
import { api, assert, deployed, keeps, noErrors, open, person, signIn, told } from "./browser.mjs";

const PAGES = [
  "/", "/apps/new", "/apps/new?from=git", "/apps/new?from=example", "/apps/shop", "/apps/shop/deployments", "/apps/shop/releases",
  "/apps/shop/variables", "/apps/shop/logs", "/apps/shop/settings", "/apps/shop/delete", "/nodes", "/cluster", "/cluster/dead-letters",
  "/cluster/sagas", "/organization", "/account", "/account/keys", ...(told.development ? ["/dashboard/components"] : []),
];
const name = (path) => path.replace(/[^a-z]+/g, "-");

await open(async (browser) => {
  // Without a script: an example is deployed, read, scaled and given variables by forms.
  const plain = await person(browser, { javaScriptEnabled: false });
  await signIn(plain);
  await plain.goto("/apps/new?from=example&example=node");
  await plain.fill("[name=name]", "shop");
  await plain.getByLabel("Node.js").check();
  await plain.getByRole("button", { name: "Deploy" }).click();
  await plain.waitForURL("**/apps/shop/deployments/*");
  for (let tries = 0; !(await plain.locator(".status.completed").count()); tries++) {
    assert.ok(tries < 150, "the example does not come to serve");
    await plain.waitForTimeout(200);
    await plain.reload();
  }
  assert.ok(await plain.locator(".log-lines .line").count() > 3, "the log can be read");
  await plain.goto("/apps/shop");
  await plain.getByRole("button", { name: "One instance of web more" }).click();
  await plain.getByText("2 instances of web are wanted.").waitFor();
  await plain.goto("/apps/shop/variables");
  await plain.getByText("Import a").click();
  await plain.fill("[name=import]", "A=1\n# a comment\nB=\"two words\"\n");
  await plain.getByRole("button", { name: "Save" }).click();
  await plain.getByText("Saved 2 variables, as version 1.").waitFor();
  await plain.goto("/apps/shop/stop");
  await plain.getByText("end; visitors are told").waitFor();
  await plain.getByRole("link", { name: "Keep it as it is" }).click();
  await plain.waitForURL("/apps/shop");
  await plain.goto("/apps/new?from=upload");
  await plain.fill("[name=name]", "uploaded");
  await plain.setInputFiles("[name=archive]", told.archive);
  await plain.getByRole("button", { name: "Deploy" }).click();
  await plain.waitForURL("**/apps/uploaded/deployments/*");
  for (const path of PAGES) {
    await plain.goto(path);
    assert.ok(await plain.locator("main h1").count() === 1, `${path} has its heading without a script`);
  }

  // Every page at both ends of the widths, dark and light.
  // What a dark page can get wrong that a light one can't are its colours.
  await Promise.all([[375, "light"], [1600, "dark", ["color-contrast"]]].map(async ([width, colorScheme, rules]) => {
    const page = await person(browser, { viewport: { width, height: 900 }, colorScheme });
    await signIn(page);
    for (const path of PAGES) {
      await page.goto(path);
      await keeps(page, `${width}${name(path)}`, rules);
    }
    await page.context().close();
  }));

  // The keyboard alone: the palette leads to the variables, and a form is sent.
  const page = await person(browser);
  await signIn(page);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Control+k");
  await page.keyboard.type("shop var");
  await page.getByRole("option", { name: "shop variables" }).waitFor();
  await keeps(page, "palette");
  await page.keyboard.press("Enter");
  await page.waitForURL("/apps/shop/variables");
  await page.locator("[data-blank] input").first().focus();
  await page.keyboard.type("C");
  await page.keyboard.press("Tab");
  await page.keyboard.type("3");
  for (let tabs = 0; (await page.evaluate(() => document.activeElement.textContent.trim())) !== "Save"; tabs++) {
    assert.ok(tabs < 20, "the button can be reached");
    await page.keyboard.press("Tab");
  }
  await page.keyboard.press("Enter");
  await page.getByText("Saved 1 variable, as version 2.").waitFor();
  await page.goto("/apps/shop/settings");
  await page.getByRole("link", { name: "Delete" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.name), "typed", "a dialog takes the focus");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });

  // A folder is chosen by those who don't drag, and a name that is taken is told while the folder stays chosen.
  await page.goto("/apps/new");
  await page.setInputFiles("#folder", told.folder);
  await page.getByText(/packed, 2 files/).waitFor();
  await page.fill("[name=name]", "shop");
  await page.getByRole("button", { name: "Deploy" }).click();
  await page.getByText("the name shop is taken").waitFor();
  await page.fill("[name=name]", "chosen");
  await page.getByRole("button", { name: "Deploy" }).click();
  await page.waitForURL("**/apps/chosen/deployments/*");
  await deployed(page);

  // Two browsers edit the same variables: the second is told, and nothing is lost.
  const other = await person(browser);
  await signIn(other);
  for (const who of [page, other]) await who.goto("/apps/shop/variables");
  const blank = (who) => who.locator("[data-blank]").first();
  await blank(page).getByLabel("Name").fill("MINE");
  await blank(page).getByLabel("Value").fill("first");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved 1 variable, as version 3.").waitFor();
  await blank(other).getByLabel("Name").fill("THEIRS");
  await blank(other).getByLabel("Value").fill("second");
  await other.getByRole("button", { name: "Save" }).click();
  await other.getByText("Somebody else saved version 3 meanwhile").waitFor();
  assert.ok((await other.content()).includes("MINE"), "what the first saved is there");
  await keeps(other, "conflict");
  await other.getByRole("button", { name: "Save" }).click();
  await other.getByText("Saved 1 variable, as version 4.").waitFor();
  const { variables } = await api(page, "GET", `/projects/${(await api(page, "GET", "/projects?name=shop")).items[0].id}/env`);
  assert.deepEqual(variables.map((variable) => variable.name), ["A", "B", "C", "MINE", "THEIRS"]);

  // A place in the page, and a problem that is a page of its own, leave what is typed where it is.
  await page.goto("/apps/shop/settings");
  await page.fill("[name=description]", "typed before a problem");
  await page.locator(".skip").focus();
  await page.keyboard.press("Enter");
  await page.waitForURL("**/settings#main");
  await page.goBack();
  await page.waitForURL("**/settings");
  assert.equal(await page.inputValue("[name=description]"), "typed before a problem");
  await page.route("**/settings/description", (route) => route.fulfill({
    status: 503, contentType: "text/html", body: "<main><h1>Unavailable</h1><p data-detail>Project does not answer now.</p></main>",
  }));
  await page.getByRole("button", { name: "Save the description" }).click();
  await page.getByText("Project does not answer now.").waitFor();
  assert.equal(new URL(page.url()).pathname, "/apps/shop/settings");
  assert.equal(await page.inputValue("[name=description]"), "typed before a problem");
  await page.unroute("**/settings/description");

  // A session that ends while a page is open: it is told, and what was typed is sent after signing in elsewhere.
  await page.goto("/apps/shop/variables");
  await blank(page).getByLabel("Name").fill("LATE");
  await blank(page).getByLabel("Value").fill("typed");
  await page.context().clearCookies();
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Your session has ended").waitFor();
  await keeps(page, "session-ended");
  const popup = page.waitForEvent("popup");
  await page.getByRole("link", { name: "Sign in" }).click();
  const signing = await popup;
  await signing.fill("[name=email]", "admin@example.com");
  await signing.fill("[name=password]", told.password);
  await signing.click("button");
  await signing.getByText("You are signed in").waitFor();
  await signing.close();
  await page.getByRole("button", { name: "Go on" }).click();
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved 1 variable, as version 5.").waitFor();
  // An upload tells it as well, and what was chosen stays.
  await page.goto("/apps/new");
  await page.setInputFiles("#folder", told.folder);
  await page.getByText(/packed, 2 files/).waitFor();
  await page.fill("[name=name]", "late");
  await page.context().clearCookies();
  await page.getByRole("button", { name: "Deploy" }).click();
  await page.getByText("Your session has ended").waitFor();
  await page.getByRole("button", { name: "Go on" }).click();
  assert.equal(await page.inputValue("[name=name]"), "late");
  // The same without a script: the form comes back with what was typed.
  await plain.goto("/apps/shop/settings");
  await plain.fill("[name=description]", "typed without a script");
  await plain.context().clearCookies({ name: /_(access|refresh)$/ });
  await plain.getByRole("button", { name: "Save the description" }).click();
  await plain.getByText("nothing that you typed is lost").waitFor();
  const second = await plain.context().newPage();
  await signIn(second);
  await plain.getByRole("button", { name: "Send again" }).click();
  await plain.getByText("The description is saved.").waitFor();
  assert.equal(await plain.inputValue("[name=description]"), "typed without a script");
  noErrors();
});
