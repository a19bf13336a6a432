// A log of any length: all lines are held, only those in view are in the page.
import { make, one } from "./dom.js";
import { listen } from "./live.js";
import { ask } from "./session.js";
import { refresh } from "./swap.js";
import { clock } from "./times.js";

const HEIGHT = 20, AT_ONCE = 10000, MOST = 200000;
const WORDS = Object.entries({ error: "err(or)?|fatal|panic|critical|exception|traceback", warning: "warn(ing)?", debug: "debug|trace" }).map(([name, words]) => [name, new RegExp(`(?<![a-z0-9])(${words})(?![a-z0-9])`, "i")]);
const level = (text) => WORDS.find(([, words]) => words.test(text.slice(0, 120)))?.[0] ?? "";

export const start = (log) => {
  const part = (name) => one(`[data-log-${name}]`, log), { source: address, topic, live, wholeLog: whole } = log.dataset;
  const [view, state, count, search, only, following, pause] = ["lines", "state", "count", "search", "only", "follow", "pause"].map(part);
  const room = make("div", { className: "log-room" }), form = one("[data-log-filter]");
  const lines = [], held = [];
  let shown = [], matches = [], at = -1, last = 0, source = null, frame = 0, before = 0;
  const isPaused = () => pause?.ariaPressed === "true", query = () => search.value.toLowerCase();
  const has = (line) => line.text.toLowerCase().includes(query());
  const fits = (line) => (!form?.from.value || line.from === form.from.value) && (!only.checked || has(line));

  const row = (line, index) => {
    const mark = query() && has(line) ? (matches[at] === index ? "at" : "match") : "";
    const element = make("div", { className: `line ${level(line.text)} ${mark}` },
      make("time", { dateTime: line.at, textContent: clock.format(new Date(line.at)) }),
      make("span", { className: "from", textContent: line.from }), make("span", { className: "text", textContent: line.text }));
    element.style.top = `${index * HEIGHT}px`;
    return element;
  };
  const draw = () => {
    frame = 0;
    room.style.height = `${shown.length * HEIGHT}px`;
    if (following.checked && !isPaused()) view.scrollTop = view.scrollHeight;
    const first = Math.max(0, Math.floor(view.scrollTop / HEIGHT) - 20), end = first + Math.ceil(view.clientHeight / HEIGHT) + 40;
    room.replaceChildren(...shown.slice(first, end).map((line, index) => row(line, first + index)));
  };
  const later = () => { frame ||= requestAnimationFrame(draw); };
  const find = () => {
    matches = query() ? shown.flatMap((line, index) => (has(line) ? index : [])) : [];
    at = Math.min(at, matches.length - 1);
    count.textContent = query() ? `${at < 0 ? "" : `${at + 1} of `}${matches.length} found` : `${shown.length.toLocaleString()} lines`;
    later();
  };
  const sift = () => { shown = lines.filter(fits); find(); };
  const go = (step) => {
    if (!matches.length) return;
    at = (at + step + matches.length) % matches.length;
    following.checked = false;
    view.scrollTop = matches[at] * HEIGHT - view.clientHeight / 2;
    find();
  };
  const add = (more) => {
    if (isPaused()) { held.push(...more); state.textContent = `${held.length} more lines wait`; return; }
    for (const line of more) {
      // The lines of two nodes may come out of order; none comes twice.
      if (line.id <= last && lines.some(({ id }) => id === line.id)) continue;
      last = Math.max(last, line.id);
      line.text = line.text.replace(/\x1b\[[0-9;]*m/g, "");
      lines.push(line);
      if (fits(line)) shown.push(line);
    }
    if (lines.length > MOST) { lines.splice(0, lines.length - MOST); sift(); } else find();
  };

  // Reads what there is, then follows what comes. It resumes after the last line, however long it was away.
  const read = async () => {
    try {
      for (let more = true; more;) {
        const after = whole !== undefined || last, response = await ask(`${address}?${after ? `after=${last}&` : ""}limit=${AT_ONCE}`);
        if (!response?.ok) {
          state.textContent = response ? (await response.json()).detail : "signed out";
          return response && (response.status > 499 || response.status === 429) && retry();
        }
        const { items } = await response.json();
        add(items);
        more = after && items.length === AT_ONCE;
      }
    } catch { return retry(); }
    if (live === undefined) { state.textContent = ""; return; }
    let batch = [];
    source = listen(topic, last, ({ kind, data }) => {
      if (kind === "gap") state.textContent = "older lines are not kept any more";
      if (kind === "log" && batch.push(data) === 1) setTimeout(() => { add(batch); batch = []; }, 50);
      if (kind === "deployment" && /completed|failed|cancelled/.test(data.status)) setTimeout(end, 500);
    });
    source.onopen = () => { state.textContent = "live"; };
    source.onclose = ({ target }) => { if (target === source) { state.textContent = "connecting again"; retry(); } };
  };
  const stop = () => { const before = source; source = null; before?.close(); };
  const end = () => { stop(); state.textContent = "ended"; refresh(); };
  const retry = () => { stop(); setTimeout(() => log.isConnected && !source && read(), 1500); };

  part("tools").hidden = false;
  following.checked = live !== undefined;
  view.addEventListener("scroll", () => {
    if (view.scrollTop < before && view.scrollTop + view.clientHeight < view.scrollHeight - HEIGHT) following.checked = false;
    before = view.scrollTop;
    later();
  });
  search.oninput = () => { at = -1; if (only.checked) sift(); else find(); };
  search.onkeydown = (event) => { if (event.key === "Enter") { event.preventDefault(); go(event.shiftKey ? -1 : 1); } };
  only.onchange = sift;
  following.onchange = later;
  part("previous").onclick = () => go(-1);
  part("next").onclick = () => go(1);
  if (pause) pause.onclick = () => {
    pause.ariaPressed = String(!isPaused());
    pause.textContent = isPaused() ? "Go on" : "Pause";
    if (!isPaused()) { state.textContent = "live"; add(held.splice(0)); }
  };
  if (form) {
    search.value = form.q.value;
    only.checked = !!form.q.value;
    form.q.hidden = form.lastElementChild.hidden = true;
    form.from.onchange = sift;
  }
  addEventListener("resize", later);
  addEventListener("shown", () => { if (!log.isConnected) stop(); else if (state.textContent === "signed out") read(); });
  addEventListener("woke", () => source && retry());
  view.replaceChildren(room);
  state.textContent = "reading";
  read();
};
