"""What hangs or is given up behind a service delays nobody else and leaves nothing open."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from metadata.conftest import Events
from metadata.memory_content import MemoryContent
from metadata.memory_snapshotter import MemorySnapshotter

from windlass.contracts.rpc import Call
from windlass.contracts.values import Descriptor
from windlass.gate import POOL_SIZE, Gate, Handle, offload
from windlass_api.containerd.services.containers.v1 import containers_pb2
from windlass_api.containerd.services.content.v1 import content_pb2
from windlass_api.containerd.services.diff.v1 import diff_pb2
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2
from windlass_metadata.database import Database
from windlass_metadata.store import MetadataStore
from windlass_services.containers import Containers
from windlass_services.content import Content
from windlass_services.diff import Diff
from windlass_services.snapshots import Snapshots

CALL = Call((("containerd-namespace", "test"),))


class SlowDisk(MemoryContent):
    """A content store whose files take long to open, and that knows what is open."""

    def __init__(self) -> None:
        super().__init__()
        self.opening, self.go_on = threading.Event(), threading.Event()
        self.opened: list[Any] = []

    def reader(self, *args: Any) -> Any:
        return self._slowly(super().reader, *args)

    def writer(self, *args: Any, **kwargs: Any) -> Any:
        return self._slowly(super().writer, *args, **kwargs)

    def _slowly(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.opening.set()
        self.go_on.wait(10)
        self.opened.append(function(*args, **kwargs))
        return self.opened[-1]


class HungDiffer:
    """A differ that never answers."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def apply(self, *args: Any) -> None:
        self.release.wait(10)


@pytest.fixture
def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
def sick() -> Iterator[MemorySnapshotter]:
    """A snapshotter that hangs in prepare until the test has ended."""
    release = threading.Event()
    snapshotter = MemorySnapshotter()

    def hang(method: str, key: str) -> None:
        if method == "prepare":
            release.wait(10)

    snapshotter.before = hang
    yield snapshotter
    release.set()


@pytest.fixture
def metadata(tmp_path: Path, disk: SlowDisk, sick: MemorySnapshotter) -> Iterator[Any]:
    """A metadata store behind its gate, with a snapshotter behind another."""
    database, gates = Database(tmp_path / "meta.db"), [Gate("sick"), Gate("metadata")]
    store = MetadataStore(database, disk, {"sick": Handle(sick, gates[0])}, Events())  # type: ignore[dict-item] # a handle has the methods of what it stands for
    yield Handle(store, gates[1])
    for gate in gates:
        gate.close()
    database.close()


async def test_a_writer_that_nobody_waits_for_any_more_gives_its_ref_back(metadata: Any, disk: SlowDisk) -> None:
    """A client that left while its ingest was being opened must be able to come back to it."""

    async def requests() -> AsyncIterator[content_pb2.WriteContentRequest]:
        yield content_pb2.WriteContentRequest(action=content_pb2.WRITE, ref="layer", data=b"x")

    async def write() -> list[content_pb2.WriteContentResponse]:
        return [answer async for answer in Content(metadata).write(requests(), CALL)]

    task = asyncio.create_task(write())
    await asyncio.to_thread(disk.opening.wait, 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    disk.go_on.set()

    async with asyncio.timeout(5):
        while metadata._instance._ledger.open_refs():
            await asyncio.sleep(0.01)
    assert (await write())[0].offset == 1


async def test_a_writer_is_closed_however_often_its_call_is_cancelled(metadata: Any, disk: SlowDisk) -> None:
    """grpc may cancel a call again while it cleans up, which may take its time behind others."""
    answered = asyncio.Event()

    async def requests() -> AsyncIterator[content_pb2.WriteContentRequest]:
        yield content_pb2.WriteContentRequest(action=content_pb2.WRITE, ref="layer", data=b"x")
        await asyncio.sleep(30)

    async def write() -> None:
        async for _ in Content(metadata).write(requests(), CALL):
            answered.set()

    disk.go_on.set()
    task = asyncio.create_task(write())
    await answered.wait()
    disk.go_on.clear()
    view = metadata.content("test")
    others = [asyncio.create_task(offload(view.writer, f"other-{number}")) for number in range(POOL_SIZE)]
    await asyncio.sleep(0.1)

    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.05)
    disk.go_on.set()

    for writer in await asyncio.gather(*others):
        writer.close()
    async with asyncio.timeout(5):
        while metadata._instance._ledger.open_refs():
            await asyncio.sleep(0.01)


async def test_a_reader_is_not_closed_on_the_loop(metadata: Any) -> None:
    """Closing waits for the read under way, which may take long."""
    threads = []

    class Reader:
        size = 10

        def read_at(self, offset: int, length: int) -> bytes:
            return bytes(length)

        def close(self) -> None:
            threads.append(threading.current_thread())

    class View:
        def remembered(self, digest: str, offset: int = 0, length: int = 0) -> None:
            return None

        def reader(self, desc: Descriptor) -> Reader:
            return Reader()

    metadata._instance.content = lambda *_: View()
    request = content_pb2.ReadContentRequest(digest="sha256:" + "0" * 64)
    assert [answer.data async for answer in Content(metadata).read(request, CALL)] == [bytes(10)]
    assert threads and threads[0] is not threading.main_thread()


async def test_layers_that_hang_delay_no_other_call(metadata: Any) -> None:
    """They wait in the pool of their differ, as many as there are."""
    differ, gate = HungDiffer(), Gate("differ")
    service = Diff(metadata, {"walking": Handle(differ, gate)}, ["walking"], False)  # type: ignore[dict-item] # a handle has the methods of what it stands for
    tasks = [asyncio.create_task(service.apply(diff_pb2.ApplyRequest(), CALL)) for _ in range(2 * POOL_SIZE)]
    await asyncio.sleep(0.1)

    async with asyncio.timeout(5):
        await offload(os.getpid)

    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    differ.release.set()
    gate.close()


async def test_a_snapshotter_that_hangs_delays_only_its_own_callers(metadata: Any) -> None:
    """The metadata store has more to do than to wait for it."""
    snapshots, containers = Snapshots(metadata), Containers(metadata)
    tasks = [
        asyncio.create_task(
            snapshots.prepare(snapshots_pb2.PrepareSnapshotRequest(snapshotter="sick", key=str(number)), CALL)
        )
        for number in range(2 * POOL_SIZE)
    ]
    await asyncio.sleep(0.2)

    async with asyncio.timeout(5):
        await containers.list(containers_pb2.ListContainersRequest(), CALL)

    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
