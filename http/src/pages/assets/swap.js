// Swaps parts of a page for those of a newer one, so that what is typed, open or scrolled stays.
import { all, make, one } from "./dom.js";
import { ask } from "./session.js";
import { showTimes } from "./times.js";

const parse = (text) => new DOMParser().parseFromString(text, "text/html");
export const page = async (address, options) => {
  const response = await ask(address, { headers: { Accept: "text/html" }, ...options });
  return response && { response, page: parse(await response.text()) };
};

// What a part was sent as, without what the reader changed in it since, and without what is new each time.
const ATTEMPT = /"attempt" value="[^"]*/g;
const sent = new WeakMap();
const steps = (root, at) => (at === root ? [] : [...steps(root, at.parentElement), [...at.parentElement.children].indexOf(at)]);

const swapParts = (next) => {
  for (const part of all("[data-part]", next)) {
    const old = one(`[data-part="${part.dataset.part}"]`), text = part.outerHTML.replace(ATTEMPT, ""), focused = document.activeElement;
    if (!old || sent.get(old) === text || (old.contains(focused) && focused.matches("input, textarea, select"))) continue;
    const open = all("details[id]", old), way = old.contains(focused) && steps(old, focused);
    const fresh = document.adoptNode(part);
    sent.set(fresh, text);
    old.replaceWith(fresh);
    for (const { id, open: is } of open) if (document.getElementById(id)) document.getElementById(id).open = is;
    if (way) way.reduce((at, index) => at?.children[index], fresh)?.focus();
    showTimes(fresh);
  }
};

let busy = false, again = false;
// Asks for this page again and swaps its parts; one request at a time.
export const refresh = async () => {
  if (document.hidden) return;
  if (busy) { again = true; return; }
  busy = true;
  try {
    const got = await page(location.href);
    if (got?.response.ok) {
      swapParts(got.page);
      dispatchEvent(new CustomEvent("refreshed", { detail: got.page }));
    }
  } catch {
    // The node is away for a moment; the next round asks again.
  }
  busy = false;
  if (again) refresh(again = false);
};

export const AWAY = "The node did not answer. What you gave is still here; try again.";
// Tells in the page why nothing was done.
const tell = (textContent) => {
  one("dialog[open]")?.close();
  one(".toasts").replaceChildren(make("p", { className: "toast refused", textContent }));
  scrollTo(0, 0);
};

// Sends a form without leaving the page, so that nothing typed is lost whatever comes of it.
export const send = async (form, button) => {
  form.dataset.sending = "";
  try {
    const body = new URLSearchParams(new FormData(form, button)), got = await page(form.action, { method: "POST", body });
    if (!got) return;
    const { response: { url, redirected }, page: next } = got, main = one("main", next);
    if (!one(".side", next)) { if (redirected) location.assign(url); else tell(one("[data-detail]", next).textContent); return; }
    document.title = next.title;
    one(".side").replaceWith(one(".side", next));
    one("main").replaceWith(main);
    if (redirected && url !== location.href) history.pushState(null, "", url);
    one("dialog[open]")?.close();
    if (redirected) scrollTo(0, 0);
    (one(".wrong input, .wrong textarea", main) ?? main).focus();
    one("[role=alert], .notice.good", main)?.scrollIntoView({ block: "nearest" });
    dispatchEvent(new Event("shown"));
  } catch {
    tell(AWAY);
  } finally {
    delete form.dataset.sending;
  }
};
