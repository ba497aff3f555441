"""Transfers: what goes over the streams, and that whatever ends first ends everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from images.archives import Receiver, Sender

from windlass.contracts.rpc import Call, serve
from windlass.contracts.transfer import Credentials, ExtraReference, Stored, Unpack
from windlass.contracts.values import Platform
from windlass.errors import AlreadyExists, DeadlineExceeded, InvalidArgument, NotFound, Unimplemented
from windlass_api.containerd.services.streaming.v1 import streaming_pb2
from windlass_api.containerd.services.transfer.v1 import transfer_pb2
from windlass_api.containerd.types.transfer import imagestore_pb2, importexport_pb2, registry_pb2
from windlass_api.containerd.types.transfer import streaming_pb2 as bytes_pb2
from windlass_api.containerd.types.transfer.progress_pb2 import Progress
from windlass_client import streams
from windlass_client.client import Client
from windlass_client.transfer import Remote
from windlass_server.grpc.answers import Limits
from windlass_server.grpc.server import Server

DATA = bytes(range(256)) * 1000
M = TypeVar("M", bound=Message)
Script = Callable[["FakeTransfers"], Awaitable[None]]
"""What the daemon does in a transfer."""
Start = Callable[[Script], Awaitable[tuple["FakeTransfers", Client]]]


class FakeStream:
    def __init__(self) -> None:
        self.received: asyncio.Queue[AnyMessage | None] = asyncio.Queue()
        self.outgoing: asyncio.Queue[AnyMessage | None] = asyncio.Queue()

    async def send(self, message: Message) -> None:
        await self.outgoing.put(streams.pack(message))

    async def close(self) -> None:
        await self.outgoing.put(None)

    async def maybe(self, kind: type[M]) -> M | None:
        """Return the next message, None at the end of the stream."""
        message = await self.received.get()
        return kind.FromString(message.value) if message is not None else None

    async def next(self, kind: type[M]) -> M:
        message = await self.maybe(kind)
        assert message is not None
        return message


class FakeTransfers:
    """A daemon that opens streams and does in a transfer what the test says."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.streams: dict[str, FakeStream] = {}
        self.open = 0
        self.leases: set[str] = set()
        self.request = transfer_pb2.TransferRequest()

    async def stream(self, requests: AsyncIterator[AnyMessage], call: Call) -> AsyncIterator[AnyMessage]:
        init = streaming_pb2.StreamInit.FromString((await anext(requests)).value)
        if init.id in self.streams:
            raise AlreadyExists(f"stream {init.id} already exists")
        stream = self.streams[init.id] = FakeStream()
        self.leases.add(call.lease)
        self.open += 1

        async def collect() -> None:
            async for message in requests:
                await stream.received.put(message)
            await stream.received.put(None)

        collecting = asyncio.create_task(collect())
        try:
            yield streams.pack(Empty())
            while (message := await stream.outgoing.get()) is not None:
                yield message
        finally:
            collecting.cancel()
            self.open -= 1

    async def transfer(self, request: transfer_pb2.TransferRequest, call: Call) -> Empty:
        self.request = request
        await self.script(self)
        return Empty()

    def of(self, kind: type[M]) -> M:
        """Return the end of the transfer that is a message of that kind."""
        for end in (self.request.source, self.request.destination):
            if end.type_url == kind.DESCRIPTOR.full_name:
                return kind.FromString(end.value)
        raise AssertionError(f"no end is a {kind}")


@pytest.fixture
async def transfers(tmp_path: Path) -> AsyncIterator[Start]:
    """Start a daemon that follows a script, and give a client of it."""
    started: list[tuple[asyncio.Server, Server, Client]] = []

    async def start(script: Script) -> tuple[FakeTransfers, Client]:
        fake = FakeTransfers(script)
        server = Server(Limits(16 << 20, 16 << 20))
        serve(server, streaming_pb2.DESCRIPTOR.services_by_name["Streaming"], fake)
        serve(server, transfer_pb2.DESCRIPTOR.services_by_name["Transfer"], fake)
        path = tmp_path / f"{len(started)}.sock"
        listener = await asyncio.get_running_loop().create_unix_server(server.connection, str(path))
        client = Client(str(path), "tests", timeout=5)
        started.append((listener, server, client))
        return fake, client.under("my-lease")

    yield start
    for listener, server, client in started:
        await client.connection.close()
        listener.close()
        await server.stop(0)


async def settled(fake: FakeTransfers) -> None:
    """Wait until the daemon has seen the end of every stream."""
    async with asyncio.timeout(5):
        while fake.open:
            await asyncio.sleep(0.01)


async def test_a_pull_says_all_that_was_asked_for(transfers: Start) -> None:
    """Every field arrives, under the lease, and with containerd's names of types."""

    async def script(fake: FakeTransfers) -> None:
        pass

    fake, client = await transfers(script)
    stored = Stored(
        "x:1",
        labels={"a": "b"},
        platforms=(Platform("windows", "amd64", "", "10.0.1", ("win32k",)),),
        all_metadata=True,
        manifest_limit=1,
        extra_references=(ExtraReference("y", True, True, True, True),),
        unpacks=(Unpack(Platform("linux", "arm", "v7"), "native"),),
    )

    await client.transfer.pull(Remote("x:1", headers={"h": "v"}, host_dir="/etc/x", plain_http=True), stored)

    assert fake.request.source.type_url == "containerd.types.transfer.OCIRegistry"
    registry, store = fake.of(registry_pb2.OCIRegistry), fake.of(imagestore_pb2.ImageStore)
    assert (registry.reference, registry.resolver.host_dir, registry.resolver.default_scheme) == (
        "x:1",
        "/etc/x",
        "http",
    )
    assert dict(registry.resolver.headers) == {"h": "v"} and not registry.resolver.auth_stream
    assert (store.name, dict(store.labels), store.all_metadata, store.manifest_limit) == ("x:1", {"a": "b"}, True, 1)
    [platform] = store.platforms
    assert (platform.os, platform.os_version, list(platform.os_features)) == ("windows", "10.0.1", ["win32k"])
    [reference] = store.extra_references
    assert reference.is_prefix and reference.allow_overwrite and reference.add_digest and reference.skip_named_digest
    [unpack] = store.unpacks
    assert (unpack.platform.variant, unpack.snapshotter) == ("v7", "native")
    assert not fake.request.options.progress_stream


async def test_progress_arrives_to_the_last_word(transfers: Start) -> None:
    """Also what the daemon says while its answer is on the way."""

    async def script(fake: FakeTransfers) -> None:
        stream = fake.streams[fake.request.options.progress_stream]
        for done in range(100):
            await stream.send(Progress(event="downloading", name="layer", progress=done, total=100))
        await stream.send(Empty())
        await stream.send(Progress(event="Completed pull"))
        await stream.close()

    fake, client = await transfers(script)
    seen: list[Progress] = []

    await client.transfer.pull(Remote("x:1"), Stored("x:1"), seen.append)

    assert [progress.event for progress in seen[-2:]] == ["downloading", "Completed pull"]
    assert len(seen) == 101
    assert fake.leases == {"my-lease"}
    await settled(fake)


@pytest.mark.parametrize(
    ("given", "kind", "username", "secret"),
    [
        (Credentials("me", "pw"), registry_pb2.CREDENTIALS, "me", "pw"),
        (Credentials("", "token"), registry_pb2.REFRESH, "", "token"),
        (None, registry_pb2.NONE, "", ""),
    ],
)
async def test_credentials_are_given_when_they_are_asked_for(
    transfers: Start, given: Credentials | None, kind: int, username: str, secret: str
) -> None:
    """As often as the daemon asks, for the host that it names, and never before."""
    answers = []

    async def script(fake: FakeTransfers) -> None:
        stream = fake.streams[fake.of(registry_pb2.OCIRegistry).resolver.auth_stream]
        for host in ("one", "two"):
            await stream.send(registry_pb2.AuthRequest(host=host, reference="x:1"))
            answers.append(await stream.next(registry_pb2.AuthResponse))

    asked = []

    async def ask(host: str, reference: str) -> Credentials | None:
        asked.append((host, reference))
        return given

    fake, client = await transfers(script)
    await client.transfer.push(Stored("x:1"), Remote("x:1", ask))

    assert asked == [("one", "x:1"), ("two", "x:1")]
    assert [(each.authType, each.username, each.secret) for each in answers] == [(kind, username, secret)] * 2
    await settled(fake)


async def test_who_cannot_answer_ends_the_transfer(transfers: Start) -> None:
    """An error while credentials are looked for is the transfer's, and the daemon is not left waiting."""

    async def script(fake: FakeTransfers) -> None:
        stream = fake.streams[fake.of(registry_pb2.OCIRegistry).resolver.auth_stream]
        await stream.send(registry_pb2.AuthRequest(host="one"))
        await asyncio.Event().wait()

    async def ask(host: str, reference: str) -> None:
        raise InvalidArgument("config.json is no JSON")

    fake, client = await transfers(script)
    with pytest.raises(InvalidArgument, match=r"config.json is no JSON"):
        await client.transfer.pull(Remote("x:1", ask), Stored("x:1"))

    await settled(fake)


async def test_what_the_daemon_logs_of_requests(transfers: Start) -> None:
    """It comes as bytes and is shown by lines."""
    lines: list[str] = []

    async def script(fake: FakeTransfers) -> None:
        resolver = fake.of(registry_pb2.OCIRegistry).resolver
        assert resolver.http_debug == registry_pb2.TRACE
        stream = fake.streams[resolver.logs_stream]
        await stream.next(bytes_pb2.WindowUpdate)
        await stream.send(bytes_pb2.Data(data=b"GET /v2/\n200"))
        await stream.send(bytes_pb2.Data(data=b" OK\n"))
        while len(lines) < 2:
            await asyncio.sleep(0.01)

    _, client = await transfers(script)
    await client.transfer.pull(Remote("x:1", trace=lines.append), Stored("x:1"))

    assert lines == ["GET /v2/", "200 OK"]


async def test_an_archive_is_sent_as_fast_as_it_is_taken(transfers: Start) -> None:
    """Nothing before a window is granted, never more than was granted, in messages of 32 KiB at most, to the end."""
    parts: list[bytes] = []

    async def script(fake: FakeTransfers) -> None:
        stream = fake.streams[fake.of(importexport_pb2.ImageImportStream).stream]
        await asyncio.sleep(0.05)
        assert stream.received.empty()
        for update in (10, 50_000, 1 << 20):
            await stream.send(bytes_pb2.WindowUpdate(update=update))
            while sum(map(len, parts)) < min(update, len(DATA)) and (data := await stream.maybe(bytes_pb2.Data)):
                parts.append(data.data)
        while (data := await stream.maybe(bytes_pb2.Data)) is not None:
            parts.append(data.data)
        # what is sent may still be worked on: the stream ends with the transfer, not before
        await asyncio.sleep(0.05)
        assert fake.open == 1

    fake, client = await transfers(script)
    await client.transfer.import_(Sender(DATA), Stored(), compress=True)

    assert b"".join(parts) == DATA
    assert len(parts[0]) == 10 and max(map(len, parts)) <= 32 << 10
    assert fake.of(importexport_pb2.ImageImportStream).force_compress


async def test_an_archive_is_received(transfers: Start) -> None:
    """Each 64 KiB that were written are granted again, and the end is waited for."""
    granted = []

    async def script(fake: FakeTransfers) -> None:
        message = fake.of(importexport_pb2.ImageExportStream)
        stream = fake.streams[message.stream]
        assert [platform.os for platform in message.platforms] == ["linux"]
        left = 0
        for start in range(0, len(DATA), 32 << 10):
            part = DATA[start : start + (32 << 10)]
            while left < len(part):
                left += (await stream.next(bytes_pb2.WindowUpdate)).update
                granted.append(left)
            left -= len(part)
            await stream.send(bytes_pb2.Data(data=part))
        asyncio.get_running_loop().call_later(0.05, lambda: stream.outgoing.put_nowait(None))

    fake, client = await transfers(script)
    out = Receiver()
    await client.transfer.export(["a:1", "b:1"], out, [Platform("linux", "amd64")])

    assert out.data == DATA
    assert max(granted) <= 128 << 10
    store = fake.of(imagestore_pb2.ImageStore)
    assert (store.name, [each.name for each in store.extra_references]) == ("a:1", ["b:1"])


async def test_the_daemons_error_is_the_transfers(transfers: Start) -> None:
    """Whatever happened on the streams before."""

    async def script(fake: FakeTransfers) -> None:
        for stream in fake.streams.values():
            await stream.close()
        await asyncio.sleep(0.05)
        raise NotFound("image x:1 does not exist")

    fake, client = await transfers(script)
    with pytest.raises(NotFound, match="image x:1 does not exist"):
        await client.transfer.export(["x:1"], Receiver(), report=lambda progress: None)
    with pytest.raises(NotFound, match="image x:1 does not exist"):
        await client.transfer.import_(Sender(DATA), Stored())
    await settled(fake)


async def test_a_disk_that_is_full_ends_an_export(transfers: Start) -> None:
    """The daemon's call is cancelled, and the error is the disk's."""

    async def script(fake: FakeTransfers) -> None:
        stream = fake.streams[fake.of(importexport_pb2.ImageExportStream).stream]
        await stream.send(bytes_pb2.Data(data=DATA))
        await asyncio.Event().wait()

    class Full:
        async def write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    fake, client = await transfers(script)
    with pytest.raises(OSError, match="No space left"):
        await client.transfer.export(["x:1"], Full())
    await settled(fake)


async def test_a_daemon_that_does_not_end_its_stream(transfers: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an archive is never taken for one."""
    monkeypatch.setattr("windlass_client.transfer.END", 0.05)

    async def script(fake: FakeTransfers) -> None:
        pass

    fake, client = await transfers(script)
    with pytest.raises(DeadlineExceeded, match="did not end its stream"):
        await client.transfer.export(["x:1"], Receiver())
    await settled(fake)


async def test_a_transfer_that_is_cancelled(transfers: Start) -> None:
    """Its streams end with it."""
    begun = asyncio.Event()

    async def script(fake: FakeTransfers) -> None:
        begun.set()
        await asyncio.Event().wait()

    fake, client = await transfers(script)
    pulling = asyncio.create_task(client.transfer.pull(Remote("x:1"), Stored("x:1"), lambda progress: None))
    await begun.wait()
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling

    await settled(fake)


async def test_a_stream_that_cannot_be_opened(
    client: Client, transfers: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is the daemon's: it knows no streams, or has one of that name."""
    with pytest.raises(Unimplemented):
        await client.transfer.pull(Remote("x:1"), Stored("x:1"), lambda progress: None)

    async def script(fake: FakeTransfers) -> None:
        pass

    _, other = await transfers(script)
    monkeypatch.setattr("windlass_client.streams.secrets.token_urlsafe", lambda size: "same")
    monkeypatch.setattr("windlass_client.streams.time.time_ns", lambda: 1)
    async with streams.opened(other.connection, "x"):
        with pytest.raises(AlreadyExists, match="stream x-1-same already exists"):
            async with streams.opened(other.connection, "x"):
                pass


async def test_tag(transfers: Start) -> None:
    """From the store to the store."""

    async def script(fake: FakeTransfers) -> None:
        pass

    fake, client = await transfers(script)
    await client.transfer.tag("a:1", "b:1")

    ends = [
        imagestore_pb2.ImageStore.FromString(end.value).name for end in (fake.request.source, fake.request.destination)
    ]
    assert ends == ["a:1", "b:1"]
    assert isinstance(fake.request.source, AnyMessage)
