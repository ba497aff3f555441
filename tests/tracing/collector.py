"""A collector's substitute: an HTTP server that decodes OTLP's protobuf and keeps the spans."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Seen(NamedTuple):
    """A span as it arrived."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    error: str
    facts: dict[str, str]
    resource: dict[str, str]


class Collector(ThreadingHTTPServer):
    """Keeps what is sent to it; while ``hangs`` is set it answers nothing."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Seen] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.hangs = threading.Event()
        self.asked = threading.Event()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def wait_for(self, *names: str, seconds: float = 20.0) -> dict[str, Seen]:
        """Return spans by name once all of these have arrived."""
        until = time.monotonic() + seconds
        while True:
            found = {span.name: span for span in list(self.spans)}
            missing = set(names) - set(found)
            if not missing:
                return found
            assert time.monotonic() < until, f"{missing} did not arrive; there are {sorted(found)}"
            time.sleep(0.05)


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.asked.set()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        while self.server.hangs.is_set():
            time.sleep(0.05)
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.paths.append(self.path)
        self.server.headers.append(dict(self.headers))
        self.server.spans.extend(decoded(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def decoded(body: bytes) -> Iterator[Seen]:
    """Return the spans of a request."""
    for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = {each.key: each.value.string_value for each in sent.resource.attributes}
        for scope in sent.scope_spans:
            for span in scope.spans:
                facts = {each.key: each.value.string_value or str(each.value.int_value) for each in span.attributes}
                yield Seen(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.kind,
                    span.status.message,
                    facts,
                    resource,
                )


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector."""
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.hangs.clear()
        server.shutdown()
        thread.join()
        server.server_close()
