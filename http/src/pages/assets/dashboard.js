// What every page of the dashboard loads; the rest is loaded where it is needed. Each page works without any of it.
import { all, dialog, one } from "./dom.js";
import "./live.js";
import { openPalette } from "./palette.js";
import { page, send } from "./swap.js";
import { showTimes } from "./times.js";

const PARTS = { log: "./log.js", upload: "./upload.js", chart: "./chart.js", variables: "./variables.js" };

const place = () => location.pathname + location.search;
let here;

const start = () => {
  here = place();
  showTimes(document);
  one(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  for (const button of all("[data-copy]")) button.hidden = !navigator.clipboard;
  for (const [name, load] of Object.entries(PARTS)) for (const element of all(`[data-${name}]:not([data-ready])`)) {
    element.dataset.ready = "";
    import(load).then((part) => part.start(element));
  }
};

// The page that asks first, as a dialog.
const openDialog = async ({ href }) => {
  const body = one("[data-dialog-body]", (await page(href))?.page ?? document);
  if (!body) { if (!one("dialog")) location.assign(href); return; }
  const shown = dialog("asks", body);
  shown.setAttribute("aria-labelledby", "confirm-title");
  (one("input:not([type=hidden])", shown) ?? one("[data-dialog-close]", shown)).focus();
};

const CLICKS = {
  "[data-dialog]": (link) => openDialog(link).catch(() => location.assign(link.href)),
  "dialog [data-dialog-close]": (link) => link.closest("dialog").close(),
  "[data-palette]": openPalette,
  "[data-copy]": (button) => navigator.clipboard.writeText(button.previousElementSibling.textContent).then(() => { button.textContent = "Copied"; }),
};

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  for (const [selector, act] of Object.entries(CLICKS)) {
    const found = event.target.closest(selector);
    if (found) { event.preventDefault(); act(found); }
  }
});
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") { event.preventDefault(); openPalette(); }
});
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.method !== "post" || form.enctype.startsWith("multipart") || "whole" in form.dataset) return;
  event.preventDefault();
  if (!("sending" in form.dataset)) send(form, event.submitter);
});
document.addEventListener("change", ({ target }) => { if (target.matches("[data-instant] select")) target.form.requestSubmit(); });
addEventListener("shown", start);
// A link to a place in the page is no other page.
addEventListener("popstate", () => place() === here || location.reload());
start();
