"""Promises of connections: through the environment's proxy, closed when idle, and no memory kept of what failed."""

from __future__ import annotations

import base64
import gc
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from registry.fake import Fake, Handler
from urllib3.connection import HTTPConnection

from windlass.errors import Cancelled, Error
from windlass_registry.client import Client
from windlass_registry.repository import Repository

CONTENT = b'{"schemaVersion": 2}'
SECRET = "s3cret/of somebody"
Request = socket.socket | tuple[bytes, socket.socket]
"""As socketserver has it: a connection, or a datagram and its socket."""


@pytest.fixture
def proxied(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The fake is a proxy, which brings every host's pages itself; the name of one."""
    monkeypatch.setenv("http_proxy", f"http://me:s3cret%2Fof%20somebody@{fake.authority}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    yield "a.test:80"


def test_a_proxy_is_given_its_user_and_password(client: Client, fake: Fake, proxied: str) -> None:
    expected = f"Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"
    fake.misbehaviours.append(
        lambda handler: handler.headers.get("Proxy-Authorization") != expected and handler.answered(407)
    )
    desc = fake.add_manifest(CONTENT)

    assert client.repository(f"{proxied}/team/app:1", scheme="http").resolve() == desc


def test_a_proxy_without_a_scheme_is_one_of_http(
    client: Client, fake: Fake, proxied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", fake.authority)
    desc = fake.add_manifest(CONTENT)

    assert client.repository(f"{proxied}/team/app:1", scheme="http").resolve() == desc


@pytest.mark.parametrize("proxy", ["socks5://me:pw@a.test:1", "http://me:pw@[::1", "http://me:pw@a.test:x"])
def test_a_proxy_that_is_none_is_told_without_its_password(
    client: Client, proxied: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy)

    with pytest.raises(Error, match="proxy") as caught:
        client.repository(f"{proxied}/team/app:1", scheme="http").resolve()
    assert "pw" not in str(caught.value)


class Connections:
    """How many clients a registry has now."""

    def __init__(self, fake: Fake) -> None:
        self.now = 0
        self.ever = 0
        self._lock = threading.Lock()
        accept, shut = fake.process_request, fake.shutdown_request

        def opened(request: Request, client_address: object) -> None:
            with self._lock:
                self.now += 1
                self.ever += 1
            accept(request, client_address)

        def closed(request: Request) -> None:
            with self._lock:
                self.now -= 1
            shut(request)

        fake.process_request = opened  # type: ignore[method-assign] # to count
        fake.shutdown_request = closed  # type: ignore[method-assign] # to count

    def become(self, count: int) -> bool:
        end = time.monotonic() + 20
        while self.now != count and time.monotonic() < end:
            time.sleep(0.02)
        return self.now == count


def test_connections_that_nobody_uses_are_closed(
    repository: Repository, client: Client, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is in use stays, however long that takes; and there are new ones when they are needed."""
    monkeypatch.setattr("windlass_registry.pools.IDLE", 0.2)
    connections = Connections(fake)
    desc, layer = fake.add_manifest(CONTENT), fake.add_blob(os.urandom(100_000))
    go_on = threading.Event()

    def slowly(handler: Handler) -> bool:
        if "blobs" in handler.path:
            data = fake.blobs[layer.digest]
            handler.answer(200, data[:10], {"Content-Length": str(len(data))})
            handler.wfile.flush()
            go_on.wait(20)
            handler.wfile.write(data[10:])
        return "blobs" in handler.path

    fake.misbehaviours.append(slowly)
    try:
        with repository.blob(layer) as blob:
            assert len(blob.read(10)) == 10
            assert repository.resolve() == desc
            assert connections.become(1)
            go_on.set()
            assert 10 + sum(map(len, iter(lambda: blob.read(1 << 16), b""))) == layer.size
    finally:
        go_on.set()
    assert connections.become(0)

    assert repository.resolve() == desc
    assert connections.ever == 3


def test_a_connection_is_used_again(repository: Repository, fake: Fake) -> None:
    connections = Connections(fake)
    fake.add_manifest(CONTENT)

    for _ in range(5):
        repository.resolve()

    assert connections.ever == 1


def test_a_large_blob_that_failed_keeps_no_memory(
    repository: Repository, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even as long as its error is kept, and without a collection of reference cycles."""
    part = 1 << 20
    monkeypatch.setattr("windlass_registry.ranges.PART", part)
    data = os.urandom(8 * part)
    desc = fake.add_blob(data)
    fake.misbehaviours.append(
        lambda handler: handler.headers.get("Range") == f"bytes={2 * part}-{3 * part - 1}" and handler.answered(404)
    )
    gc.disable()
    tracemalloc.start()
    try:
        errors = []
        for _ in range(3):
            with pytest.raises(Error) as caught, repository.ranges(desc, 0, 3) as blob:
                while blob.read(part // 2):
                    pass
            errors.append(caught.value)
        kept, most = tracemalloc.get_traced_memory()
        assert len(errors) == 3 and most > 2 * part
        assert kept < part
    finally:
        tracemalloc.stop()
        gc.enable()


def test_nobody_is_waited_for_once_a_request_has_ended(
    repository: Repository, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it ended: the deadline for progress counts by that."""
    monkeypatch.setattr("windlass_registry.ranges.PART", 30_000)
    desc, layer = fake.add_manifest(CONTENT), fake.add_blob(os.urandom(100_000))

    repository.resolve()
    repository.manifest(desc)
    with repository.blob(layer) as blob:
        blob.read(10)
        assert repository.meter.mark().waiting == 1
    fake.ranges = False
    with repository.ranges(layer, 0, 3) as ranges:
        assert ranges.read(10)
    fake.misbehaviours.append(lambda handler: handler.answered(404))
    for ask in (repository.resolve, repository.tags, lambda: repository.blob(layer).read(1)):
        with pytest.raises(Error):
            ask()
    repository.abort()
    with pytest.raises(Error):
        repository.resolve()

    assert repository.meter.mark().waiting == 0


def test_what_is_skipped_is_progress(repository: Repository, fake: Fake) -> None:
    """A host that knows no ranges sends what is there already, which of a large blob takes longer than any deadline."""
    layer = fake.add_blob(os.urandom(100_000))
    fake.ranges = False
    with repository.blob(layer, 90_000) as blob:
        assert len(b"".join(iter(lambda: blob.read(1 << 16), b""))) == 10_000
    assert repository.meter.mark().brought == 100_000


def test_a_request_that_is_aborted_while_it_connects_is_not_sent(
    repository: Repository, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was no socket yet that could be shut down; what answers by bytes would hold its thread for ever."""
    connect = HTTPConnection._new_conn

    def aborted_meanwhile(connection: HTTPConnection) -> socket.socket:
        found = connect(connection)
        repository.abort()
        return found

    monkeypatch.setattr(HTTPConnection, "_new_conn", aborted_meanwhile)
    with pytest.raises(Cancelled):
        repository.resolve()
    assert fake.requests == []
