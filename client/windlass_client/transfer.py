"""The transfer service: the daemon moves images, and talks to the client over streams (docs/containerd 3.17)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Never

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from windlass.contracts.transfer import Ask, ByteReader, ByteWriter, Credentials, ExtraReference, Stored
from windlass.contracts.values import Platform
from windlass.errors import DeadlineExceeded
from windlass_api.containerd.services.transfer.v1 import transfer_pb2 as pb
from windlass_api.containerd.services.transfer.v1.transfer_pb2_grpc import TransferStub
from windlass_api.containerd.types import platform_pb2
from windlass_api.containerd.types.transfer import imagestore_pb2, importexport_pb2, registry_pb2
from windlass_api.containerd.types.transfer.progress_pb2 import Progress
from windlass_client.connection import Connection
from windlass_client.streams import Stream, opened, pack, receive_bytes, send_bytes

END = 30.0
"""Seconds for the last of what a daemon sends after it has said that it is done."""

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Remote:
    """An image in a registry, and how the daemon is to get there."""

    reference: str
    ask: Ask | None = None
    """Asked for credentials when the registry wants some."""
    headers: Mapping[str, str] = field(default_factory=dict)
    host_dir: str = ""
    plain_http: bool = False
    trace: Callable[[str], None] | None = None
    """Given what the daemon says of each request."""


class Transfer:
    """Transfers of the namespace; call it under a lease, which keeps streams and what is half done."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = TransferStub(connection.channel)

    async def pull(self, source: Remote, destination: Stored, report: Report | None = None) -> None:
        """Bring an image from a registry into the store."""
        async with _Streams(self._connection) as streams:
            await self._move(await streams.registry(source), store(destination), streams, report)

    async def push(self, source: Stored, destination: Remote, report: Report | None = None) -> None:
        """Bring an image from the store into a registry."""
        async with _Streams(self._connection) as streams:
            await self._move(store(source), await streams.registry(destination), streams, report)

    async def tag(self, source: str, name: str) -> None:
        """Give a second name to an image."""
        async with _Streams(self._connection) as streams:
            await self._move(store(Stored(source)), store(Stored(name)), streams, None)

    async def import_(
        self, source: ByteReader, destination: Stored, compress: bool = False, report: Report | None = None
    ) -> None:
        """Have the daemon import an archive."""
        async with _Streams(self._connection) as streams:
            stream = await streams.open("import")
            streams.work(send_bytes(stream, source))
            message = importexport_pb2.ImageImportStream(stream=stream.id, force_compress=compress)
            await self._move(message, store(destination), streams, report)

    async def export(
        self,
        names: Sequence[str],
        sink: ByteWriter,
        platforms: Sequence[Platform] = (),
        all_platforms: bool = False,
        report: Report | None = None,
    ) -> None:
        """Have the daemon export images to an archive."""
        async with _Streams(self._connection) as streams:
            stream = await streams.open("export")
            streams.work(receive_bytes(stream, sink), to_the_end=True)
            message = importexport_pb2.ImageExportStream(
                stream=stream.id, platforms=map(_platform, platforms), all_platforms=all_platforms
            )
            extra = tuple(ExtraReference(name) for name in names[1:])
            await self._move(store(Stored(names[0], extra_references=extra)), message, streams, report)

    async def _move(self, source: Message, destination: Message, streams: _Streams, report: Report | None) -> None:
        request = pb.TransferRequest(source=pack(source), destination=pack(destination))
        if report is not None:
            progress = await streams.open("progress")
            request.options.progress_stream = progress.id
            streams.work(_follow(progress, report), to_the_end=True)
        call = self._connection.call(self._stub.Transfer, request, None)
        await streams.during(asyncio.create_task(call))


def store(stored: Stored) -> imagestore_pb2.ImageStore:
    """Return the message for one end of a transfer."""
    return imagestore_pb2.ImageStore(
        name=stored.name,
        labels=stored.labels,
        platforms=map(_platform, stored.platforms),
        all_metadata=stored.all_metadata,
        manifest_limit=stored.manifest_limit,
        extra_references=[
            imagestore_pb2.ImageReference(
                name=each.name,
                is_prefix=each.is_prefix,
                allow_overwrite=each.allow_overwrite,
                add_digest=each.add_digest,
                skip_named_digest=each.skip_named_digest,
            )
            for each in stored.extra_references
        ],
        unpacks=[
            imagestore_pb2.UnpackConfiguration(platform=_platform(each.platform), snapshotter=each.snapshotter)
            for each in stored.unpacks
        ],
    )


def _platform(platform: Platform) -> platform_pb2.Platform:
    return platform_pb2.Platform(
        os=platform.os,
        architecture=platform.architecture,
        variant=platform.variant,
        os_version=platform.os_version,
        os_features=platform.os_features,
    )


async def _follow(stream: Stream, report: Report) -> None:
    while (message := await stream.receive()) is not None:
        if message.type_url.rpartition("/")[2] == Progress.DESCRIPTOR.full_name:
            report(Progress.FromString(message.value))


async def _answer(stream: Stream, ask: Ask) -> None:
    """Answer the daemon's questions for credentials, one after the other."""
    while (message := await stream.receive()) is not None:
        request = registry_pb2.AuthRequest.FromString(message.value)
        await stream.send(_response(await ask(request.host, request.reference)))


def _response(credentials: Credentials | None) -> registry_pb2.AuthResponse:
    if credentials is None:
        return registry_pb2.AuthResponse(authType=registry_pb2.NONE)
    kind = registry_pb2.CREDENTIALS if credentials.username else registry_pb2.REFRESH
    return registry_pb2.AuthResponse(authType=kind, username=credentials.username, secret=credentials.secret)


class _Lines:
    """Takes bytes and gives lines."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._rest = b""

    async def write(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._show(line.decode(errors="replace"))
        self._rest = self._rest[-4096:]


class _Streams:
    """The streams of one transfer, and what is done on each as long as it goes on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._last: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> _Streams:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._tasks, *self._last]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._stack.aclose()

    async def open(self, prefix: str) -> Stream:
        """Open a stream."""
        return await self._stack.enter_async_context(opened(self._connection, prefix))

    def work(self, what: Coroutine[object, Never, None], to_the_end: bool = False) -> None:
        """Do something on a stream; ``to_the_end`` what the daemon sends before its end has to arrive."""
        (self._last if to_the_end else self._tasks).append(asyncio.create_task(what))

    async def registry(self, remote: Remote) -> registry_pb2.OCIRegistry:
        """Return the message for an image in a registry, with streams for what the daemon asks and says."""
        resolver = registry_pb2.RegistryResolver(
            headers=remote.headers, host_dir=remote.host_dir, default_scheme="http" if remote.plain_http else ""
        )
        if remote.ask is not None:
            stream = await self.open("auth")
            resolver.auth_stream = stream.id
            self.work(_answer(stream, remote.ask))
        if remote.trace is not None:
            stream = await self.open("logs")
            resolver.logs_stream = stream.id
            resolver.http_debug = registry_pb2.TRACE
            self.work(receive_bytes(stream, _Lines(remote.trace)))
        return registry_pb2.OCIRegistry(reference=remote.reference, resolver=resolver)

    async def during(self, main: asyncio.Task[Empty]) -> None:
        """Wait for the call; an error of ours ends it, after an error of its own everything else ends too."""
        try:
            waiting: set[asyncio.Task[object]] = {main, *self._tasks, *self._last}
            while not main.done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {main}:
                    task.result()
            main.result()
        finally:
            main.cancel()
        if self._last:
            ended, late = await asyncio.wait(self._last, timeout=END)
            for last in ended:
                last.result()
            if late:
                raise DeadlineExceeded(f"the daemon did not end its stream within {END:g} s after the transfer")
