// Keeps a page as it would be after a reload: by what is told live, and by asking again after a sleep.
import { one } from "./dom.js";
import { ask } from "./session.js";
import { refresh } from "./swap.js";

let source = null, timer = 0, waits = 0, topics = "";
const soon = () => { waits ||= setTimeout(() => { waits = 0; refresh(); }, 200); };

const follow = () => {
  const { topics: named = "", refresh: every = 3600 } = one("main").dataset, wanted = named.split(",").slice(0, 64).join();
  clearInterval(timer);
  timer = setInterval(soon, every * 1000);
  if (wanted === topics && source?.readyState !== 2) return;
  source?.close();
  source = (topics = wanted) && new EventSource(`/api/v1/live?topics=${wanted}`);
  if (!source) return;
  for (const kind of ["deployment", "instance", "instance_gone", "gap"]) source.addEventListener(kind, soon);
  source.addEventListener("end", again);
  source.onerror = ({ target }) => { if (target === source && target.readyState === 2) again(); };
};

// Connects anew; the server tells first whether anybody is signed in.
const again = () => {
  source?.close();
  setTimeout(() => ask("/palette", { method: "HEAD" }).then((answer) => answer && wake(), again), 1000 + Math.random() * 1000);
};
const wake = () => { if (!document.hidden) { soon(); follow(); } };

addEventListener("shown", follow);
addEventListener("refreshed", ({ detail }) => { one("main").dataset.topics = one("main", detail).dataset.topics ?? ""; follow(); });
addEventListener("online", wake);
document.addEventListener("visibilitychange", wake);
follow();
