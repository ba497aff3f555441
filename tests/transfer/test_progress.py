"""Promises of the progress deadline: it ends a pull that its registry holds up, and no other."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from registry.fake import LAYER, MANIFEST, digest_of

from windlass.contracts.values import Descriptor
from windlass.errors import Cancelled, DeadlineExceeded
from windlass_registry.client import Client
from windlass_registry.meter import STEP, Meter
from windlass_registry.repository import Repository
from windlass_transfer.plugin import Config
from windlass_transfer.progress import kept_moving
from windlass_transfer.workers import Threads

LIMIT = 0.4


@contextmanager
def dripping(head: bytes, drop: bytes, pause: float) -> Iterator[str]:
    """A registry that sends ``head``, of its token server `BODY`, and then ``drop`` every ``pause`` seconds."""
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(connection: socket.socket) -> None:
            with connection:
                try:
                    request = connection.recv(1 << 16)
                    connection.sendall(BODY if b" /token" in request else head.replace(b"HERE", here.encode()))
                    while not stopped.wait(pause):
                        connection.sendall(drop)
                except OSError:
                    pass  # the client has gone

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        here = f"127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield here
        finally:
            stopped.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


BODY = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: 100000\r\n\r\n" % MANIFEST.encode()
UNWANTED = b"HTTP/1.1 %s\r\nContent-Length: 10000\r\n\r\n"
LOGIN = b'401 No\r\nConnection: close\r\nWWW-Authenticate: Bearer realm="http://HERE/token"'
BLOB = Descriptor(LAYER, digest_of(b""), 100_000)


def resolve(repository: Repository) -> object:
    return repository.resolve()


def manifest(repository: Repository) -> object:
    return repository.manifest(Descriptor(MANIFEST, digest_of(b""), 100_000))


def whole(repository: Repository) -> bytes:
    with repository.blob(BLOB, verify=False) as blob:
        return b"".join(iter(lambda: blob.read(1 << 16), b""))


SICK: dict[str, tuple[bytes, bytes, Callable[[Repository], object]]] = {
    "silent": (b"", b"", resolve),
    "headers by bytes": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", resolve),
    "a manifest by bytes": (BODY, b"x", manifest),
    "a blob by bytes": (BODY, b"x", whole),
    "headers, and no blob": (BODY, b"", whole),
    "a token by bytes": (UNWANTED.replace(b"10000", b"0") % LOGIN, b"x", resolve),
    "a refusal by bytes, which is not read": (UNWANTED % b"401 No\r\nWWW-Authenticate: Basic", b"x", whole),
    "a redirect's body by bytes, which is not read": (UNWANTED % b"302 There\r\nLocation: /", b"x", whole),
}


@pytest.mark.parametrize("sick", SICK)
async def test_a_registry_that_brings_nothing_to_speak_of_ends_the_pull(tmp_path: Path, sick: str) -> None:
    head, drop, ask = SICK[sick]
    client, threads = Client([tmp_path]), Threads(1, "test")
    with dripping(head, drop, 0.02) as address:
        repository = client.repository(f"{address}/team/app:1", scheme="http")
        try:
            with pytest.raises(DeadlineExceeded, match="image x: its registry brought less than 16 KiB within 400ms"):
                async with kept_moving(repository.meter, LIMIT, "image x"):
                    await threads.run(lambda: ask(repository), repository.abort)
            with pytest.raises(Cancelled):
                repository.resolve()
            # Few threads ask for all pulls of a daemon: none may be held by a registry.
            assert await asyncio.wait_for(threads.run(lambda: "free", repository.abort), 10) == "free"
        finally:
            repository.abort()
            threads.close()
            client.close()


async def test_a_registry_that_is_slow_and_not_stuck_is_waited_for(tmp_path: Path) -> None:
    """What comes in pieces of 16 KiB, over longer than the deadline, is progress."""
    client, threads = Client([tmp_path]), Threads(1, "test")
    with dripping(BODY, b"x" * STEP, 0.4) as address:
        repository = client.repository(f"{address}/team/app:1", scheme="http")
        async with kept_moving(repository.meter, 2.0, "image x"):
            assert await threads.run(lambda: whole(repository), repository.abort) == b"x" * 100_000
    threads.close()
    client.close()


async def test_time_in_which_no_registry_is_asked_does_not_count() -> None:
    """Layers that others download, or that are unpacked, take what they take."""
    async with kept_moving(Meter(), LIMIT, "image x"):
        await asyncio.sleep(4 * LIMIT)


async def test_a_deadline_of_zero_is_none() -> None:
    meter = Meter()
    meter.begin()
    async with kept_moving(meter, 0, "image x"):
        await asyncio.sleep(2 * LIMIT)


async def test_a_time_out_of_another_kind_is_not_the_deadline_s() -> None:
    with pytest.raises(TimeoutError):
        async with kept_moving(Meter(), LIMIT, "image x"):
            raise TimeoutError


def test_the_deadline_is_written_as_containerd_writes_it() -> None:
    assert Config().patience() == 300
    assert Config(image_pull_progress_timeout="0s").patience() == 0
    for wrong in ("-1s", "soon", "5"):
        with pytest.raises(ValueError, match="duration"):
            Config(image_pull_progress_timeout=wrong)
