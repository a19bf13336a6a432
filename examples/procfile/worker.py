"""The process that works in the background: one tick every few seconds."""

import os
import signal
import threading

INTERVAL = float(os.environ.get("TICK_SECONDS", "5"))

stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())

tick = 0
while not stopping.is_set():
    tick += 1
    print(f"tick {tick}", flush=True)
    stopping.wait(INTERVAL)
print("worker stops", flush=True)
