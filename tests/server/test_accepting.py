"""Connections are taken as far as there is room, and trouble is logged once."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from server.grpc_echo import eventually
from server.test_http2 import Peer

from windlass_server import accepting
from windlass_server.accepting import Acceptor
from windlass_server.grpc.answers import Limits
from windlass_server.grpc.server import Server
from windlass_server.sockets import listen

LIMITS = Limits(1 << 20, 1 << 20)


class Place:
    """A server that takes connections at a path."""

    def __init__(self, path: Path, most: int = accepting.MOST_CONNECTIONS, descriptors: int = 0) -> None:
        """Take ``most`` connections; with ``descriptors`` as if the process might have no more than those."""
        self.path = path
        self.server = Server(LIMITS)
        connections = self.server.connections
        self.place = listen(path, (-1, -1))
        with limited(descriptors):
            self.acceptor = Acceptor(self.place.socket, self.server.connection, lambda: len(connections), most)

    async def close(self) -> None:
        self.acceptor.close()
        self.place.close()
        await self.server.stop(0.1)

    async def is_served(self) -> bool:
        """Tell whether one more client gets an answer."""
        peer = await Peer.connect(self.path)
        try:
            peer.call(1, path="/t.None/x")
            return (await peer.status(1))[0] == 12
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        finally:
            peer.writer.close()


@contextmanager
def limited(descriptors: int) -> Iterator[None]:
    """Set the limit of descriptors for a moment in which none is opened; 0 leaves it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def descriptors() -> Iterator[list[int]]:
    """Descriptors to use up, under a limit that is soon reached; afterwards all is as before."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used: list[int] = []
    yield used
    for each in used:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_no_more_connections_than_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Others are closed at once, which the log says once; when some have ended there is room again."""
    place = Place(tmp_path / "s", most=20)
    idle = [await Peer.connect(place.path) for _ in range(20)]
    await eventually(lambda: len(place.server.connections) == 20)
    with caplog.at_level(logging.WARNING):
        assert [await place.is_served() for _ in range(5)] == [False] * 5
    assert [each.message for each in caplog.records] == [
        f"{place.path}: 20 connections are open, further ones are refused until some end"
    ]
    for each in idle[:3]:
        each.writer.close()
    await eventually(lambda: len(place.server.connections) == 17)
    assert await place.is_served()
    for each in idle[3:]:
        each.writer.close()
    await place.close()


async def test_connections_never_take_more_than_half_of_the_descriptors(tmp_path: Path) -> None:
    """So that the daemon has some left to work for those who are connected."""
    place = Place(tmp_path / "s", descriptors=60)
    peers: list[socket.socket] = []
    for _ in range(40):
        peers.append(socket.socket(socket.AF_UNIX))
        peers[-1].connect(str(place.path))
    await eventually(lambda: len(place.server.connections) == 30)
    for each in peers:
        each.close()
    await place.close()


async def test_descriptors_that_run_out_are_told_once(
    tmp_path: Path, descriptors: list[int], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback, no busy loop; and who waited meanwhile is served when there are descriptors again."""
    monkeypatch.setattr(accepting, "PAUSE", 0.05)
    place = Place(tmp_path / "s")
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(10)]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    resource.setrlimit(resource.RLIMIT_NOFILE, (waiting[-1].fileno() + 20, hard))
    with pytest.raises(OSError, match="Too many open files"):
        while True:
            descriptors.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    with caplog.at_level(logging.WARNING):
        for each in waiting:
            each.connect(str(place.path))
        await asyncio.sleep(0.5)
    for descriptor in descriptors:
        os.close(descriptor)
    descriptors.clear()
    assert [each.message.partition(";")[0] for each in caplog.records] == [
        f"{place.path}: no connection is taken: Too many open files"
    ]
    assert errors == []
    await eventually(lambda: len(place.server.connections) == 10)
    assert await place.is_served()
    for each in waiting:
        each.close()
    await place.close()


@pytest.fixture
async def many(tmp_path: Path, descriptors: list[int]) -> AsyncIterator[Place]:
    """A server in a process that may have 4,000 descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4000:
        pytest.skip(f"a process may have {hard} descriptors here, and this needs 4000")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4000, hard))
    place = Place(tmp_path / "s")
    yield place
    await place.close()


async def test_fifteen_hundred_descriptors(many: Place) -> None:
    """Numbers above 1023 are for select(2) only too high; nothing here may call it."""
    idle = [await asyncio.open_unix_connection(many.path) for _ in range(750)]
    await eventually(lambda: len(many.server.connections) == 750)
    peer = await Peer.connect(many.path)
    assert peer.writer.get_extra_info("socket").fileno() > 1500
    peer.call(1, path="/t.None/x")
    assert (await peer.status(1))[0] == 12
    for _, writer in [*idle, (None, peer.writer)]:
        writer.close()
