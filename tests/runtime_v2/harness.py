"""A daemon in miniature for the task manager's tests: a context, an exchange, and a zygote that runs `fake_shim.py`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from windlass.contracts.containers import Container
from windlass.contracts.events import EXCHANGE, Envelope
from windlass.contracts.properties import GRPC_ADDRESS, LOG_LEVEL, STATE, TTRPC_ADDRESS
from windlass.contracts.shims import FORKED_SHIM, ForkedShim
from windlass.contracts.tasks import CreateOptions, Tasks
from windlass.contracts.values import Payload
from windlass.contracts.zygote import ZYGOTE, Child, Zygote
from windlass.errors import Unavailable
from windlass.hooks import Hooks
from windlass.plugin import Meta, PluginType, Record
from windlass_api.containerd.services.events.ttrpc.v1.events_pb2 import ForwardRequest
from windlass_api.ttrpc import framing as ttrpc
from windlass_runtime_v2.plugin import SHIM, Config, ShimConfig, init

T = TypeVar("T")
C = TypeVar("C")

FAKE = Path(__file__).parent / "fake_shim.py"
RUNTIME = "io.containerd.fake.v1"
SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec"


class MemoryExchange:
    """Keeps what was published."""

    def __init__(self) -> None:
        self.published: list[tuple[str, str, Payload]] = []

    def publish(self, namespace: str, topic: str, event: Payload) -> None:
        self.published.append((namespace, topic, event))

    def forward(self, envelope: Envelope) -> None:
        self.published.append((envelope.namespace, envelope.topic, envelope.event))

    @property
    def topics(self) -> list[str]:
        return [topic for _, topic, _ in self.published]


class ProcessZygote:
    """Executes `fake_shim.py` where the real zygote would fork; its children survive a daemon, not a test."""

    def __init__(self) -> None:
        self.children: list[subprocess.Popen[bytes]] = []
        self.entries: list[str] = []
        self.broken = False
        self.defective = False

    def preload(self, modules: Sequence[str]) -> None:
        pass

    def spawn(self, entry: str, arguments: Sequence[str], descriptors: Sequence[int], timeout: float = 10.0) -> Child:
        if self.broken:
            raise Unavailable("the zygote is broken on purpose")
        if self.defective:
            raise ValueError("the zygote has a defect on purpose")
        self.entries.append(entry)
        command = [sys.executable, str(FAKE), entry, *map(str, descriptors), *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        child = subprocess.Popen(command, pass_fds=descriptors, env=environment, start_new_session=True)
        self.children.append(child)
        return Child(child.pid, os.pidfd_open(child.pid))

    @property
    def running(self) -> list[int]:
        return [child.pid for child in self.children if child.poll() is None]

    def end(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()


@dataclass
class FakeContext:
    """The `windlass.plugin.InitContext` of one daemon's life."""

    base: Path
    loop: asyncio.AbstractEventLoop
    instances: Mapping[str, Any]
    timeouts: Mapping[str, float]
    configs: Mapping[type, Any]
    uri: str = "io.containerd.runtime.v2.task"
    meta: Meta = field(default_factory=Meta)
    hooks: Hooks = field(default_factory=Hooks)
    starts: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    stops: list[Callable[[], Awaitable[None] | None]] = field(default_factory=list)
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def root(self) -> Path:
        return self.base / "root" / self.uri

    @property
    def state(self) -> Path:
        return self.base / "state" / self.uri

    @property
    def properties(self) -> Mapping[str, str]:
        return {
            GRPC_ADDRESS: str(self.base / "w.sock"),
            TTRPC_ADDRESS: str(self.base / "w.sock.ttrpc"),
            STATE: str(self.base / "state"),
            LOG_LEVEL: "info",
        }

    def config(self, kind: type[C]) -> C:
        found: C = self.configs.get(kind) or kind()
        return found

    def timeout(self, key: str) -> float:
        return self.timeouts.get(key.removeprefix("io.containerd.timeout."), 5.0)

    def single(self, kind: PluginType[T]) -> T:
        instance: T = self.instances[kind.uri]
        return instance

    def by_id(self, kind: PluginType[T], id: str) -> T:
        return self.all(kind)[id]

    def all(self, kind: PluginType[T]) -> dict[str, T]:
        found: dict[str, T] = self.instances.get(kind.uri, {})
        return found

    def records(self) -> tuple[Record, ...]:
        return ()

    def on_start(self, callback: Callable[[], Awaitable[None]]) -> None:
        self.starts.append(callback)

    def on_reload(self, keys: Collection[str], callback: Callable[[], Awaitable[None] | None]) -> None:
        raise NotImplementedError

    def on_stop(self, callback: Callable[[], Awaitable[None] | None]) -> None:
        self.stops.append(callback)

    def register_readiness(self) -> Callable[[], None]:
        return self.ready.set


def names(directory: Path) -> list[str]:
    """Return the names of tasks below a directory, once those are gone that are being deleted at leisure."""
    deadline = time.monotonic() + 5
    while any(directory.glob("*/.*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    return sorted(path.name for path in directory.glob("*/*"))


@dataclass
class Daemon:
    """A task manager that runs, and what it was given."""

    tasks: Tasks
    exchange: MemoryExchange
    zygote: Any
    context: FakeContext

    @property
    def sockets(self) -> list[str]:
        return sorted(path.name for path in (self.context.base / "state" / "s").iterdir())

    @property
    def bundles(self) -> list[str]:
        return names(self.context.state)

    @property
    def works(self) -> list[str]:
        return names(self.context.root)

    def left(self) -> dict[str, list[str]]:
        """What is there of tasks; empty lists when all is gone."""
        return {"sockets": self.sockets, "bundles": self.bundles, "works": self.works}


FORKED = ForkedShim(runtimes=(RUNTIME,), entry="fake:serve", cleanup="fake:cleanup")


@contextlib.asynccontextmanager
async def daemon(
    base: Path,
    zygote: Zygote,
    shims: Mapping[str, ForkedShim] | None = None,
    timeouts: Mapping[str, float] | None = None,
    config: Config | None = None,
    shim_config: ShimConfig | None = None,
) -> AsyncIterator[Daemon]:
    """Run a daemon's task manager; what its shims keep stays when it ends."""
    exchange = MemoryExchange()
    instances = {
        EXCHANGE.uri: exchange,
        ZYGOTE.uri: zygote,
        FORKED_SHIM.uri: shims or {"fake": FORKED},
        SHIM.uri: shim_config or ShimConfig(),
    }
    loop = asyncio.get_running_loop()
    context = FakeContext(base, loop, instances, timeouts or {}, {Config: config or Config(request_timeout=10.0)})
    tasks = await asyncio.to_thread(init, context)  # type: ignore[arg-type] # as much of one as it uses
    for start in context.starts:
        await start()
    try:
        yield Daemon(tasks, exchange, zygote, context)
    finally:
        for stop in reversed(context.stops):
            stopping = stop()
            if stopping is not None:
                await stopping


# Any: JSON
def container(id: str = "box", runtime: str = RUNTIME, **behaviour: Any) -> Container:
    """A container; ``behaviour`` is what `fake_shim.py` reads from the spec."""
    return Container(id, runtime=runtime, spec=Payload(SPEC_TYPE, json.dumps(behaviour).encode()))


async def run(tasks: Tasks, box: Container, namespace: str = "test") -> int:
    """Create and start a task."""
    await tasks.create(namespace, box, CreateOptions())
    return await tasks.start(namespace, box.id)


@contextlib.asynccontextmanager
async def event_sink(address: str, into: list[str]) -> AsyncIterator[None]:
    """Take the events that shims forward to ``address``, and note their topics."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = ttrpc.FrameDecoder()
        try:
            while data := await reader.read(65536):
                for frame in decoder.feed(data):
                    request = ForwardRequest.FromString(ttrpc.decode_request(frame.data).payload)
                    into.append(request.envelope.topic)
                    answer = ttrpc.encode_response(ttrpc.Response())
                    writer.write(ttrpc.pack_frame(frame.stream, ttrpc.RESPONSE, 0, answer))
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, address)
    try:
        yield
    finally:
        server.close()


async def eventually(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)
