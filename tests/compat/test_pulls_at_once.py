"""Pulls that meet others: one is cancelled, one is collected, one writes the same layer, and the rest succeed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from compat.images import digest_of
from compat.registries import needs_registry, proxied, registry
from compat.scratch_daemon import METADATA, needs_ctr, needs_root, wait_until
from compat.test_transfer import Built, Machine, layer_of, pulling
from google.protobuf.empty_pb2 import Empty
from registry.fake import LAYER, Handler, running

from windlass.contracts.values import Descriptor
from windlass_api.containerd.services.content.v1 import content_pb2, content_pb2_grpc
from windlass_api.containerd.services.transfer.v1 import transfer_pb2_grpc
from windlass_client.client import Client
from windlass_registry.ranges import PART

pytestmark = [needs_root, needs_ctr, needs_registry]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    try:
        machine.start()
        yield machine
    finally:
        machine.close()


class Held:
    """Lets requests for some blobs wait until they are let go; a `Spoil`."""

    def __init__(self) -> None:
        self.gates: dict[str, threading.Event] = {}
        self.asked: dict[str, threading.Event] = {}

    def hold(self, desc: Descriptor) -> None:
        self.gates[desc.digest], self.asked[desc.digest] = threading.Event(), threading.Event()

    def let_go(self) -> None:
        for gate in self.gates.values():
            gate.set()

    def __call__(self, path: str, count: int, body: bytes) -> None:
        digest = path.rpartition("/")[2]
        if digest in self.gates:
            self.asked[digest].set()
            self.gates[digest].wait(60)


def transfer(channel: grpc.Channel, reference: str) -> grpc.Future[Empty]:
    return transfer_pb2_grpc.TransferStub(channel).Transfer.future(pulling(reference), metadata=METADATA, timeout=120)


def test_a_pull_is_not_harmed_by_another_that_is_cancelled(machine: Machine, address: str) -> None:
    """The snapshots that both use are kept by each: the one that made them ends, and they stay for the other."""
    common = [layer_of(200), layer_of(201)]
    one, other = Built(*common, layer_of(202)), Built(*common, layer_of(203))
    one.push(f"{address}/together/one:1")
    other.push(f"{address}/together/other:1")
    held = Held()
    held.hold(one.layers[-1])
    held.hold(other.layers[-1])
    with proxied(address, held) as proxy, machine.channel() as channel:
        try:
            first = transfer(channel, f"{proxy.address}/together/one:1")
            assert wait_until(lambda: sum("sha256:" in name for name in machine.kept()["snapshots"]) >= 2, 30)
            second = transfer(channel, f"{proxy.address}/together/other:1")
            assert held.asked[other.layers[-1].digest].wait(30)
            time.sleep(0.5)  # it has looked by then which snapshots there are
            assert first.cancel()
            assert wait_until(lambda: len(machine.kept()["leases"]) == 1, 40), machine.kept()
        finally:
            held.let_go()
        second.result()
    assert machine.kept()["images"] == [f"{proxy.address}/together/other:1"]


def test_pulls_removals_and_collections_at_once(machine: Machine, address: str) -> None:
    """Whatever is cancelled, removed and collected beside it, a pull that nobody cancels succeeds; nothing is left."""
    layers = [layer_of(210 + number, 50_000) for number in range(6)]
    images = [Built(*layers[:2], *layers[2 + number : 5 + number]) for number in range(2)]
    images += [Built(*layers[:count]) for count in (1, 3)]
    for number, image in enumerate(images):
        image.push(f"{address}/mixed/app{number}:1")
    dice = random.Random(7)
    end = time.monotonic() + 8
    stopped = threading.Event()
    with proxied(address, delay=0.01) as proxy, machine.channel() as channel, ThreadPoolExecutor(8) as pool:
        names = [f"{proxy.address}/mixed/app{number}:1" for number in range(len(images))]

        def pull(seed: int) -> int:
            own, done = random.Random(seed), 0
            while time.monotonic() < end:
                call = transfer(channel, own.choice(names))
                if seed % 2:
                    time.sleep(own.uniform(0, 0.4))
                    call.cancel()
                else:
                    call.result()
                    done += 1
            return done

        def remove() -> None:
            while not stopped.wait(dice.uniform(0, 0.1)):
                machine.ctr("images", "rm", "--sync", dice.choice(names))

        remover = pool.submit(remove)
        pulls: list[Future[int]] = [pool.submit(pull, seed) for seed in range(6)]
        try:
            done = sum(each.result() for each in pulls)
        finally:
            stopped.set()
            remover.result()
    assert done > 6
    for name in machine.kept()["images"]:
        machine.ctr("images", "rm", "--sync", name)
    gone: dict[str, list[str]] = {"blobs": [], "ingests": [], "images": [], "leases": [], "snapshots": []}
    assert wait_until(lambda: machine.kept() == gone, 30), machine.kept()


# The same layer, written by another client


@dataclass
class Writing:
    """A client that has written a part, and commits the rest when the test says so."""

    cancel: Callable[[], object]
    commit: Callable[[], int]
    """Return how many bytes there are then."""


@contextmanager
def writing(machine: Machine, layer: Descriptor, data: bytes, count: int, kind: str = "layer") -> Iterator[Writing]:
    """Write the beginning of a layer as a client of the content service, and hold it open."""
    go_on = threading.Event()
    request = content_pb2.WriteContentRequest(
        action=content_pb2.WRITE,
        ref=f"{kind}-{layer.digest}",
        total=layer.size,
        expected=layer.digest,
        data=data[:count],
    )
    commit = content_pb2.WriteContentRequest(
        action=content_pb2.COMMIT, total=layer.size, expected=layer.digest, offset=count, data=data[count:]
    )

    def requests() -> Iterator[content_pb2.WriteContentRequest]:
        yield request
        go_on.wait(60)
        yield commit

    with machine.channel() as channel:
        call = content_pb2_grpc.ContentStub(channel).Write(requests(), metadata=METADATA)

        def finish() -> int:
            go_on.set()
            return next(call).offset

        try:
            assert next(call).offset == count
            yield Writing(call.cancel, finish)
        finally:
            go_on.set()
            call.cancel()


@pytest.mark.parametrize("dies", [True, False])
def test_a_pull_waits_for_another_client_that_writes_the_same_layer(
    machine: Machine,
    address: str,
    dies: bool,
) -> None:
    """What the other has finished is used; what it leaves, when it dies, is gone on with from where it was."""
    image = Built(layer_of(220 + dies, 1 << 20))
    image.push(f"{address}/locked/app:1")
    [layer] = image.layers
    data = image.blobs[layer.digest]
    with proxied(address) as proxy, machine.channel() as channel:
        with writing(machine, layer, data, 300_000) as writer:
            call = transfer(channel, f"{proxy.address}/locked/app:1")
            with pytest.raises(grpc.FutureTimeoutError):
                call.result(timeout=2)
            if dies:
                writer.cancel()
            else:
                assert writer.commit() == layer.size
            call.result()
        fetched = {path: count for path, count in proxy.counts.items() if layer.digest in path and "GET" in path}
    assert len(fetched) == dies and machine.kept()["ingests"] == []


@pytest.mark.parametrize("dies", [True, False])
def test_who_waits_for_a_config_does_not_ask_for_it(machine: Machine, address: str, dies: bool) -> None:
    """A registry that counts requests is asked when the wait is over, if at all, and not each time that we look."""
    image = Built(layer_of(222 + dies))
    image.push(f"{address}/config/app:1")
    data = image.blobs[image.config.digest]
    with proxied(address) as proxy, machine.channel() as channel:
        with writing(machine, image.config, data, 10, "config") as writer:
            call = transfer(channel, f"{proxy.address}/config/app:1")
            with pytest.raises(grpc.FutureTimeoutError):
                call.result(timeout=2)
            if dies:
                writer.cancel()
            else:
                assert writer.commit() == len(data)
            call.result()
        fetched = [count for path, count in proxy.counts.items() if image.config.digest in path and "GET" in path]
    assert sum(fetched) == dies and machine.kept()["ingests"] == []


async def test_a_client_waits_for_another_that_writes_the_same_blob(machine: Machine) -> None:
    """The library's `Content.write`, as containerd's clients do."""
    data = random.Random(230).randbytes(300_000)
    desc = Descriptor("", digest_of(data), len(data))

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    with writing(machine, desc, data, 70_000) as other:
        async with Client(str(machine.address), "default") as client:
            write = asyncio.create_task(
                client.content.write(f"layer-{desc.digest}", chunks(), desc.size, labels={"containerd.io/gc.root": "1"})
            )
            await asyncio.wait([write], timeout=1)
            assert not write.done()
            other.cancel()
            assert await write == desc.digest
            assert await client.content.read(desc.digest, desc.size) == data
            await client.content.delete(desc.digest)


# A registry that gets nowhere


def resident(machine: Machine) -> int:
    """Return the bytes of memory that a daemon has."""
    [line] = [line for line in Path(f"/proc/{machine.pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) << 10


def test_failed_pulls_of_a_large_layer_keep_no_memory(machine: Machine) -> None:
    """A layer that comes in parts of 8 MiB breaks off after three: each such pull kept 10 MiB and more."""
    part = os.urandom(PART)
    image = Built((b"", "sha256:" + "b" * 64))
    layer = {"mediaType": LAYER, "digest": "sha256:" + "a" * 64, "size": 100 << 20}
    manifest = json.dumps(json.loads(image.manifest) | {"layers": [layer]}).encode()

    def parts(handler: Handler) -> bool:
        if "a" * 64 not in handler.path:
            return False
        first, _, last = handler.headers["Range"].removeprefix("bytes=").partition("-")
        if int(first) >= 3 * PART:
            handler.answer(404)
        else:
            handler.answer(206, part, {"Content-Range": f"bytes {first}-{last}/{layer['size']}"})
        return True

    with running() as fake, machine.channel() as channel:
        fake.add_blob(image.blobs[image.config.digest])
        fake.add_manifest(manifest, "1", image.target.media_type)
        fake.misbehaviours.append(parts)

        def fail() -> None:
            with pytest.raises(grpc.RpcError) as caught:
                transfer(channel, f"{fake.authority}/large/app:1").result()
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND

        def after_one_more() -> int:
            fail()
            return resident(machine)

        before = after_one_more()
        later = [after_one_more() for _ in range(18)]
        # What malloc gives back, it gives back at times: of a pull that kept something, all later ones would have it.
        assert min(later[9:]) - before < 9 * PART


def test_a_pull_whose_registry_gets_nowhere_ends(tmp_path: Path, address: str) -> None:
    """By the configured deadline, with its reason; nothing of it stays, and the next pull is as good as ever."""
    config = tmp_path / "config.toml"
    config.write_text('[plugins."io.containerd.transfer.v1.local"]\nimage_pull_progress_timeout = "2s"\n')
    image = Built(layer_of(240), layer_of(241))
    image.push(f"{address}/stuck/app:1")
    held = Held()
    held.hold(image.layers[1])
    daemon = Machine(tmp_path, arguments=["--config", str(config)])
    try:
        daemon.start()
        with proxied(address, held) as proxy:
            try:
                told = daemon.refused(f"{proxy.address}/stuck/app:1")
                assert "brought less than 16 KiB within 2s; image_pull_progress_timeout says" in told
            finally:
                held.let_go()
            daemon.pull(f"{proxy.address}/stuck/app:1")
    finally:
        daemon.close()
