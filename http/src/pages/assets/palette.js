// The command palette: Ctrl-K, a few letters, Enter.
import { dialog, make, one } from "./dom.js";
import { ask } from "./session.js";

const TABS = ["deployments", "releases", "variables", "logs", "settings"];

export const openPalette = async () => {
  if (one("dialog")) return;
  let links = [], found = [], at = 0;
  const shown = dialog("palette"), input = one("input", shown), list = one("ul", shown);
  const show = () => {
    const words = input.value.toLowerCase().split(" ");
    found = links.filter(({ label }) => words.every((word) => label.toLowerCase().includes(word))).slice(0, 40);
    at = Math.max(0, Math.min(at, found.length - 1));
    list.replaceChildren(...found.map(({ label, kind, address }, index) => make("li", { id: `found-${index}`, role: "option", ariaSelected: String(index === at), onclick: () => location.assign(address) },
      label, make("span", { className: "muted", textContent: kind }))));
    input.setAttribute("aria-activedescendant", `found-${at}`);
    list.children[at]?.scrollIntoView({ block: "nearest" });
  };
  input.oninput = () => { at = 0; show(); };
  input.onkeydown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, Enter: 0 }[event.key];
    if (step === undefined || !found.length) return;
    event.preventDefault();
    if (!step) location.assign(found[at].address);
    at = (at + step + found.length) % found.length;
    show();
  };
  shown.ariaLabel = "Find";
  shown.onclick = ({ target }) => target === shown && shown.close();
  const response = await ask("/palette");
  if (!response?.ok) return;
  links = await response.json();
  links = links.flatMap((link) => [link, ...(link.kind === "App" ? TABS : []).map((tab) => ({ ...link, label: `${link.label} ${tab}`, address: `${link.address}/${tab}` }))]);
  show();
};
