"""A web app of the standard library only."""

import html
import json
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

VERSION = "1.0.0"
PORT = int(os.environ.get("PORT", "8000"))
INSTANCE = os.environ.get("CALLBOARD_INSTANCE", "local")
STARTED = time.monotonic()

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Python on Callboard</title><link rel="icon" href="data:,"></head>
<body style="font: 1.1rem/1.6 system-ui, sans-serif; max-width: 36rem; margin: 4rem auto; padding: 0 1rem">
<h1>Hello from Python</h1>
<p>Version <b>{version}</b>, instance <code>{instance}</code>, up {uptime:.0f} s.</p>
</body>
</html>
"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/":
            uptime = time.monotonic() - STARTED
            page = PAGE.format(version=VERSION, instance=html.escape(INSTANCE), uptime=uptime)
            self.answer(200, "text/html; charset=utf-8", page)
        elif path == "/health":
            self.answer(200, "application/json", json.dumps({"status": "ok"}))
        elif path == "/info":
            info = {"version": VERSION, "instance": INSTANCE, "pid": os.getpid()}
            self.answer(200, "application/json", json.dumps(info))
        else:
            self.answer(404, "text/plain; charset=utf-8", "There is nothing here.\n")

    do_HEAD = do_GET

    def answer(self, status, kind, body):
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, template, *values):
        print(template % values, flush=True)


class Server(ThreadingHTTPServer):
    # Idle connections must not hold up a stop.
    daemon_threads = True
    request_queue_size = 128


def main():
    server = Server(("0.0.0.0", PORT), Handler)

    def stop(*_):
        print("SIGTERM: stopping", flush=True)
        # shutdown() waits for the loop that this handler interrupts.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    print(f"version {VERSION} listens on port {PORT}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()


if __name__ == "__main__":
    main()
