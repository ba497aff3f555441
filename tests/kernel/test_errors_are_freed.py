"""Errors do not stay: nothing refers to a call's error, or to its request, once the call has been answered.

Garbage collection is off in these tests, so that what is freed is what nothing refers to, not even itself in a circle.
A request of 15 MiB in such a circle stays until the next full collection, which comes late in a daemon.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from windlass.contracts import rpc
from windlass.errors import DeadlineExceeded, NotFound, Unavailable
from windlass.gate import Gate, Handle, offload, offloaded
from windlass_api.containerd.services.leases.v1 import leases_pb2 as pb
from windlass_api.containerd.services.leases.v1 import leases_pb2_grpc as stubs
from windlass_metadata.database import Database
from windlass_server.grpc.answers import Limits
from windlass_server.grpc.calls import Call
from windlass_server.grpc.server import Server
from windlass_server.http2.streams import Stream

LIMIT = 1 << 20


class Watched:
    """Remembers, without holding them, every error and request of a test."""

    def __init__(self) -> None:
        self.seen: list[weakref.ref[Any]] = []

    def note(self, thing: Any) -> Any:
        self.seen.append(weakref.ref(thing))
        return thing

    async def gone(self) -> bool:
        """Tell whether nothing of it is there any more; threads and callbacks have a moment."""
        for _ in range(1000):
            if all(reference() is None for reference in self.seen):
                break
            await asyncio.sleep(0.01)
        assert self.seen
        return all(reference() is None for reference in self.seen)


@pytest.fixture
def watched() -> Iterator[Watched]:
    gc.collect()
    gc.disable()
    yield Watched()
    gc.enable()


class Request:
    """What a call is made with."""


def fail(watched: Watched, request: Request) -> None:
    raise watched.note(NotFound("there is no such thing"))


class Plugin:
    """One whose methods fail."""

    def fail(self, watched: Watched, request: Request) -> None:
        fail(watched, request)

    async def fail_on_loop(self, watched: Watched, request: Request) -> None:
        fail(watched, request)


async def test_an_error_of_a_plugins_thread_is_freed(watched: Watched) -> None:
    """Through handle, gate and pool."""
    gate = Gate("io.example.v1.plugin")
    plugin: Any = Handle(Plugin(), gate)
    with pytest.raises(NotFound):
        await offload(plugin.fail, watched, watched.note(Request()))
    with pytest.raises(NotFound):
        await plugin.fail_on_loop(watched, watched.note(Request()))
    assert await watched.gone()
    gate.close()


async def test_an_error_of_the_gate_itself_is_freed(watched: Watched) -> None:
    """A deadline that is missed, and a plugin that has been stopped."""
    gate = Gate("io.example.v1.plugin")
    release = threading.Event()
    with pytest.raises(DeadlineExceeded) as late:
        await offloaded(gate.guard(lambda: release.wait(10), "wait"), deadline=0.01)()
    watched.note(late.value)
    del late
    release.set()
    gate.close()
    with pytest.raises(Unavailable) as closed:
        await offloaded(gate.guard(lambda: None, "nothing"), deadline=1)()
    watched.note(closed.value)
    del closed
    assert await watched.gone()


class Leases:
    """Some of the Leases service; each method fails in its own way."""

    def __init__(self, watched: Watched, plugin: Any) -> None:
        self._watched, self._plugin = watched, plugin

    async def create(self, request: pb.CreateRequest, call: rpc.Call) -> pb.CreateResponse:
        fail(self._watched, self._watched.note(Request()))
        raise AssertionError

    async def delete(self, request: pb.DeleteRequest, call: rpc.Call) -> None:
        await offload(self._plugin.fail, self._watched, self._watched.note(Request()))

    async def list(self, request: pb.ListRequest, call: rpc.Call) -> pb.ListResponse:
        held = self._watched.note(Request())
        await asyncio.sleep(60)
        raise AssertionError(held)


@pytest.fixture
async def leases(tmp_path: Path, watched: Watched) -> AsyncIterator[Any]:
    gate = Gate("io.example.v1.plugin")
    server = Server(Limits(LIMIT, LIMIT))
    service = Leases(watched, Handle(Plugin(), gate))
    rpc.serve(server, pb.DESCRIPTOR.services_by_name["Leases"], service)
    listener = await asyncio.get_running_loop().create_unix_server(server.connection, str(tmp_path / "s"))
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
        yield stubs.LeasesStub(channel)
    listener.close()
    await server.stop(0.2)
    gate.close()


METADATA = (("containerd-namespace", "a"),)


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_an_error_that_a_client_got_is_freed(leases: Any, watched: Watched) -> None:
    """One of the handler itself, and one of a plugin's thread."""
    assert await code_of(leases.Create(pb.CreateRequest(), metadata=METADATA)) == grpc.StatusCode.NOT_FOUND
    assert await code_of(leases.Delete(pb.DeleteRequest(), metadata=METADATA)) == grpc.StatusCode.NOT_FOUND
    assert await watched.gone()


async def test_a_call_that_ended_early_is_freed(leases: Any, watched: Watched) -> None:
    """By its deadline, or because the client went."""
    late = leases.List(pb.ListRequest(), metadata=METADATA, timeout=0.1)
    assert await code_of(late) == grpc.StatusCode.DEADLINE_EXCEEDED
    left = leases.List(pb.ListRequest(), metadata=METADATA)
    while len(watched.seen) < 2:
        await asyncio.sleep(0.01)
    left.cancel()
    assert await watched.gone()


async def test_calls_leave_nothing_for_the_collector(leases: Any) -> None:
    """Whatever became of them: with many of them the collector would have much to do."""
    for _ in range(3):
        await code_of(leases.Create(pb.CreateRequest(), metadata=METADATA))
        await code_of(leases.Create(pb.CreateRequest()))
        await code_of(leases.Delete(pb.DeleteRequest(), metadata=METADATA))
        await code_of(leases.List(pb.ListRequest(), metadata=METADATA, timeout=0.05))
    assert [each for each in gc.get_objects() if isinstance(each, (Stream, Call))] == []


async def test_an_error_of_the_metadata_writer_is_freed(watched: Watched, tmp_path: Path) -> None:
    """It is raised in the thread of whoever wrote for everybody, and again in the caller's."""
    database = Database(tmp_path / "meta.db")

    def change(rows: object) -> None:
        fail(watched, watched.note(Request()))

    with pytest.raises(NotFound):
        await offload(database.write, change)
    database.close()
    del change
    assert await watched.gone()
