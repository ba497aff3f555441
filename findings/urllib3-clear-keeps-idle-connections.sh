#!/bin/bash
# urllib3 2.8.0: PoolManager.clear() leaves idle connections open as long as one response of their host is alive.
#
# Its documentation says that clear() empties the store of pools "and direct[s] them all to close", and that in-flight
# connections are not used again. But clear() only forgets the pools: a pool closes its idle connections when it is
# garbage-collected, and a response that is still being read, or kept, refers to it. HTTPConnectionPool.close() closes
# them at once.
#
# Seen: one connection is idle, one is being read; after clear() the server still has 2, after close() of the pool 1.
# Exits with 1 if this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet urllib3==2.8.0
"$work/venv/bin/python" - <<'PYTHON'
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import urllib3


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "100000" if self.path == "/long" else "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    now = 0

    def handle_error(self, *arguments):
        pass  # the client leaves in the middle of a response

    def process_request(self, *arguments):
        self.now += 1
        super().process_request(*arguments)

    def shutdown_request(self, *arguments):
        self.now -= 1
        super().shutdown_request(*arguments)


server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_address[1]}"


def settled(wanted):
    end = time.monotonic() + 3
    while server.now != wanted and time.monotonic() < end:
        time.sleep(0.02)
    return server.now


manager = urllib3.PoolManager(maxsize=4)
long = manager.urlopen("GET", base + "/long", preload_content=False)
assert manager.urlopen("GET", base + "/short").data == b"ok"  # its connection is idle now
pool = manager.connection_from_url(base)
manager.clear()
after_clear = settled(1)
pool.close()
after_close = settled(1)
print(f"open at the server: {after_clear} after clear(), {after_close} after close() of the pool")
long.close()
sys.exit(0 if (after_clear, after_close) == (2, 1) else 1)
PYTHON
