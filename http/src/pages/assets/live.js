// Keeps a page as it would be after a reload: by what is told live, and by asking again after a sleep.
import { one } from "./dom.js";
import { ask } from "./session.js";
import { refresh } from "./swap.js";

// A WebSocket, because a browser opens few connections to one host and a stream of events would keep one for each tab.
export const listen = (topics, after, hear) => {
  const socket = new WebSocket(`${location.origin.replace("http", "ws")}/api/v1/live?topics=${topics}&after=${after}`);
  socket.onmessage = ({ data }) => hear(JSON.parse(data));
  return socket;
};

let socket = null, timer = 0, waits = 0, topics = "", ticked = Date.now();
const soon = () => { waits ||= setTimeout(() => { waits = 0; refresh(); }, 200); };

const follow = () => {
  const { topics: named = "", refresh: every = 3600 } = one("main").dataset, wanted = named.split(",").slice(0, 64).join();
  clearInterval(timer);
  timer = setInterval(soon, every * 1000);
  if (wanted === topics && socket?.readyState < 2) return;
  const before = socket;
  socket = (topics = wanted) && listen(wanted, "", soon);
  before?.close?.();
  if (socket) socket.onclose = ({ target }) => { if (target === socket) setTimeout(again, 1000 + Math.random() * 1000); };
};

// Connects anew; the server tells first whether anybody is signed in.
const again = () => ask("/api/v1/auth/whoami", { method: "HEAD" }).then((answer) => answer && wake(), () => setTimeout(again, 2000));
const wake = () => { if (!document.hidden) { soon(); follow(); } };

// A machine that slept does not know that its connections are gone.
setInterval(() => {
  if (Date.now() - ticked > 20000) { socket?.close?.(); dispatchEvent(new Event("woke")); }
  ticked = Date.now();
}, 5000);
addEventListener("shown", follow);
addEventListener("refreshed", ({ detail }) => { one("main").dataset.topics = one("main", detail).dataset.topics ?? ""; follow(); });
addEventListener("online", wake);
document.addEventListener("visibilitychange", wake);
follow();
