"""A small registry on a free loopback port, which misbehaves as its test wants."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from windlass.contracts.values import Descriptor

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

Misbehave = Callable[["Handler"], bool]
"""Answers a request in place of the registry, or returns False."""


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Fake

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, ValueError):  # the client has gone, as many tests want
            self.close_connection = True

    def do(self) -> None:
        fake = self.server
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        self.place = parts.path
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        fake.requests.append((self.command, self.path, dict(self.headers)))
        fake.bodies.append(self.body)
        if any(misbehave(self) for misbehave in fake.misbehaviours):
            return
        self.serve()

    do_GET = do_HEAD = do_POST = do_PUT = do

    def serve(self) -> None:
        fake = self.server
        kind, _, object = self.place.rpartition("/")
        if self.command == "POST":
            if "mount" in self.query and self.query["mount"][0] in fake.blobs:
                return self.answer(201)
            return self.answer(202, headers={"Location": f"{self.place}1"})
        if self.command == "PUT":
            return self.store(kind, object)
        if kind.endswith("/manifests") and object in fake.manifests:
            media_type, data = fake.manifests[object]
            return self.answer(200, data, {"Content-Type": media_type, "Docker-Content-Digest": digest_of(data)})
        if kind.endswith("/blobs") and object in fake.blobs:
            return self.blob(fake.blobs[object])
        if self.place.endswith("/tags/list"):
            return self.answer(200, json.dumps({"tags": sorted(fake.tags)}).encode())
        error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "not here\x1b[31m"}]}
        return self.answer(404, json.dumps(error).encode())

    def store(self, kind: str, object: str) -> None:
        if kind.endswith("/manifests"):
            self.server.add_manifest(self.body, object, self.headers["Content-Type"])
        else:
            self.server.blobs[self.query["digest"][0]] = self.body
        self.answer(201, headers={"Docker-Content-Digest": digest_of(self.body)})

    def blob(self, data: bytes) -> None:
        wanted = self.headers.get("Range")
        if wanted and self.server.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last or len(data) - 1)
            place = f"bytes {start}-{end}/{len(data)}"
            return self.answer(206, data[start : end + 1], {"Content-Range": place})
        return self.answer(200, data)

    def answer(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None, cut: int = -1) -> None:
        """Answer; with ``cut`` the connection is closed after so many bytes of the body."""
        self.send_response(status)
        headers = {"Content-Length": str(len(data)), **(headers or {})}
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if cut < 0 else data[:cut])
        if cut >= 0:
            self.wfile.flush()
            self.close_connection = True

    def answered(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None, cut: int = -1) -> bool:
        """Answer, and return True: what a misbehaviour says that has answered."""
        self.answer(status, data, headers, cut)
        return True


class Fake(ThreadingHTTPServer):
    """The registry; a test adds content and misbehaviours."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.tags: set[str] = set()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        self.misbehaviours: list[Misbehave] = []
        self.ranges = True

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def add_blob(self, data: bytes) -> Descriptor:
        self.blobs[digest_of(data)] = data
        return Descriptor(LAYER, digest_of(data), len(data))

    def add_manifest(self, data: bytes, tag: str = "1", media_type: str = MANIFEST) -> Descriptor:
        self.manifests[tag] = self.manifests[digest_of(data)] = (media_type, data)
        self.tags.add(tag)
        return Descriptor(media_type, digest_of(data), len(data))

    def asked(self, word: str) -> list[tuple[str, str, dict[str, str]]]:
        return [request for request in self.requests if word in request[1]]


@contextmanager
def running() -> Iterator[Fake]:
    """Serve as long as the context lasts."""
    with Fake() as fake:
        thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield fake
        finally:
            fake.shutdown()
            thread.join()
