"use strict";
// Keeps the home page as it would be after a reload. Without this script the page is the same, only not live.
(() => {
  const main = document.querySelector("main[data-topics]");
  if (!main) return;
  let source = null, timer = 0, busy = false;

  const refresh = async () => {
    timer = 0;
    if (busy || document.hidden) return;
    busy = true;
    try {
      const response = await fetch("/", { headers: { Accept: "text/html" } });
      if (response.redirected) return void location.reload();
      if (!response.ok) return;
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const next = page.querySelector("main[data-topics]");
      if (!next) return;
      for (const part of next.querySelectorAll("[data-part]")) {
        const old = main.querySelector(`[data-part="${part.dataset.part}"]`);
        if (old && old.innerHTML !== part.innerHTML) old.replaceWith(document.adoptNode(part));
      }
      if (next.dataset.topics !== main.dataset.topics) {
        main.dataset.topics = next.dataset.topics;
        follow();
      }
    } catch {
      // The node is away for a moment; the next round asks again.
    } finally {
      busy = false;
    }
  };

  const soon = () => { timer ||= setTimeout(refresh, 250); };

  const follow = () => {
    source?.close();
    source = null;
    if (!main.dataset.topics || !window.EventSource) return;
    source = new EventSource(`/api/v1/live?topics=${encodeURIComponent(main.dataset.topics)}`);
    for (const kind of ["deployment", "instance", "instance_gone", "gap", "end"]) source.addEventListener(kind, soon);
  };

  follow();
  setInterval(soon, 5000);
  document.addEventListener("visibilitychange", soon);
})();
