"use strict";

const http = require("node:http");
const { version } = require("./package.json");

const port = Number(process.env.PORT || 3000);
const instance = process.env.CALLBOARD_INSTANCE || "local";
const started = Date.now();

const page = () => `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Node on Callboard</title><link rel="icon" href="data:,"></head>
<body style="font: 1.1rem/1.6 system-ui, sans-serif; max-width: 36rem; margin: 4rem auto; padding: 0 1rem">
<h1>Hello from Node ${process.versions.node}</h1>
<p>Version <b>${version}</b>, instance <code>${instance}</code>, up ${Math.round((Date.now() - started) / 1000)} s.</p>
<p>Time, streamed by the app: <b id="time">…</b></p>
<script>
  new EventSource("/events").onmessage = (event) => { document.getElementById("time").textContent = event.data; };
</script>
</body>
</html>
`;

// Streams that are open; a graceful stop ends them, so that the browser connects to the next instance.
const streams = new Set();

function stream(request, response) {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  const tick = () => response.write(`data: ${new Date().toISOString()}\n\n`);
  tick();
  const timer = setInterval(tick, 1000);
  streams.add(response);
  response.on("close", () => {
    clearInterval(timer);
    streams.delete(response);
  });
}

function answer(request, response) {
  const { pathname } = new URL(request.url, "http://app");
  if (pathname === "/events") return stream(request, response);
  if (pathname === "/echo") {
    response.writeHead(200, { "content-type": request.headers["content-type"] || "application/octet-stream" });
    return request.pipe(response);
  }
  if (pathname === "/health") return send(response, 200, "application/json", JSON.stringify({ status: "ok" }));
  if (pathname === "/info") {
    return send(response, 200, "application/json", JSON.stringify({ version, instance, pid: process.pid }));
  }
  if (pathname === "/") return send(response, 200, "text/html; charset=utf-8", page());
  return send(response, 404, "text/plain; charset=utf-8", "There is nothing here.\n");
}

function send(response, status, type, body) {
  response.writeHead(status, { "content-type": type, "content-length": Buffer.byteLength(body) });
  response.end(body);
}

const server = http.createServer((request, response) => {
  const begun = process.hrtime.bigint();
  response.on("close", () => {
    const took = Number(process.hrtime.bigint() - begun) / 1e6;
    console.log(`${request.method} ${request.url} ${response.statusCode} ${took.toFixed(1)} ms`);
  });
  answer(request, response);
});

// Longer than the router keeps an idle connection, so that it is never closed under a request.
server.keepAliveTimeout = 75_000;

server.listen(port, () => console.log(`version ${version} listens on port ${port}`));

process.on("SIGTERM", () => {
  console.log("SIGTERM: finishing what is running");
  server.close(() => process.exit(0));
  server.closeIdleConnections();
  for (const response of streams) response.end();
});
