"""The Transfer service: source and destination of each transfer, and its streams (docs/containerd 3.17)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from windlass.contracts.rpc import Call
from windlass.contracts.streaming import Stream, Streams
from windlass.contracts.transfer import (
    Ask,
    Credentials,
    Destination,
    ExportArchive,
    ExtraReference,
    ImportArchive,
    Progress,
    Registry,
    Report,
    Source,
    Stored,
    Transferrer,
    Unpack,
)
from windlass.errors import Cancelled, DeadlineExceeded, InvalidArgument, Unimplemented
from windlass_api.containerd.services.transfer.v1 import transfer_pb2 as pb
from windlass_api.containerd.types.transfer import imagestore_pb2, importexport_pb2, progress_pb2, registry_pb2
from windlass_remote.messages import from_platform, to_descriptor
from windlass_services.bytestreams import Lines, StreamReader, StreamWriter
from windlass_services.streaming import payload, type_of

INTERVAL = 0.3
"""Seconds between progress messages about one thing."""
ANSWER_TIMEOUT = 300.0
"""Seconds in which a client has to answer for credentials; a person may have to type them."""

M = TypeVar("M", bound=Message)


class Transfer:
    """``containerd.services.transfer.v1.Transfer``."""

    def __init__(self, transferrers: Sequence[Transferrer], streams: Streams) -> None:
        """Ask ``transferrers`` in turn."""
        self._transferrers = transferrers
        self._streams = streams

    async def transfer(self, request: pb.TransferRequest, call: Call) -> Empty:
        """Move an image."""
        namespace = call.namespace
        async with AsyncExitStack() as stack:
            ends = _Ends(self._streams, namespace, stack)
            source = await ends.source(request.source)
            destination = await ends.destination(request.destination)
            report = await ends.report(request.options.progress_stream)
            await self._first(namespace, source, destination, report, call.lease)
        return Empty()

    async def _first(
        self, namespace: str, source: Source, destination: Destination, report: Report, lease: str
    ) -> None:
        problem = Unimplemented("no plugin that transfers images is installed")
        for transferrer in self._transferrers:
            try:
                await transferrer.transfer(namespace, source, destination, report, lease)
                return
            except Unimplemented as error:
                problem = error
        raise problem


class _Ends:
    """What the messages of one request stand for; their streams are closed with ``stack``."""

    def __init__(self, streams: Streams, namespace: str, stack: AsyncExitStack) -> None:
        self._streams = streams
        self._namespace = namespace
        self._stack = stack

    async def source(self, message: AnyMessage) -> Source:
        kind = type_of(message)
        if kind == registry_pb2.OCIRegistry.DESCRIPTOR.full_name:
            return await self._registry(_parse(registry_pb2.OCIRegistry, message))
        if kind == imagestore_pb2.ImageStore.DESCRIPTOR.full_name:
            return _stored(_parse(imagestore_pb2.ImageStore, message))
        if kind == importexport_pb2.ImageImportStream.DESCRIPTOR.full_name:
            archive = _parse(importexport_pb2.ImageImportStream, message)
            stream = await self._stream(archive.stream)
            return ImportArchive(StreamReader(stream), archive.media_type, archive.force_compress)
        raise Unimplemented(f"{kind or 'nothing'} is not a source that images can be transferred from")

    async def destination(self, message: AnyMessage) -> Destination:
        kind = type_of(message)
        if kind == registry_pb2.OCIRegistry.DESCRIPTOR.full_name:
            return await self._registry(_parse(registry_pb2.OCIRegistry, message))
        if kind == imagestore_pb2.ImageStore.DESCRIPTOR.full_name:
            return _stored(_parse(imagestore_pb2.ImageStore, message))
        if kind == importexport_pb2.ImageExportStream.DESCRIPTOR.full_name:
            return await self._export(_parse(importexport_pb2.ImageExportStream, message))
        raise Unimplemented(f"{kind or 'nothing'} is not a destination that images can be transferred to")

    async def report(self, name: str) -> Report:
        """Return a report of each step for a client that follows; without one, drop the steps."""
        if not name:
            return lambda progress: None
        follower = _Follower(await self._stream(name))
        await self._stack.enter_async_context(follower.running())
        return follower.report

    async def _registry(self, message: registry_pb2.OCIRegistry) -> Registry:
        resolver = message.resolver
        ask = _asking(await self._stream(resolver.auth_stream)) if resolver.auth_stream else None
        trace = None
        if resolver.logs_stream and resolver.http_debug != registry_pb2.DISABLED:
            lines = Lines(await self._stream(resolver.logs_stream))
            await self._stack.enter_async_context(_beside(lines.run()))
            trace = lines.tell
        headers = dict(resolver.headers)
        return Registry(message.reference, ask, headers, resolver.host_dir, resolver.default_scheme, trace=trace)

    async def _export(self, message: importexport_pb2.ImageExportStream) -> ExportArchive:
        return ExportArchive(
            StreamWriter(await self._stream(message.stream)),
            message.media_type,
            tuple(map(from_platform, message.platforms)),
            message.all_platforms,
            message.skip_compatibility_manifest,
            message.skip_non_distributable,
        )

    async def _stream(self, name: str) -> Stream:
        stream = await self._streams.get(self._namespace, name)
        self._stack.push_async_callback(stream.close)
        return stream


def _parse(kind: type[M], message: AnyMessage) -> M:
    try:
        return kind.FromString(message.value)
    except DecodeError as error:
        raise InvalidArgument(f"{kind.DESCRIPTOR.full_name} does not parse: {error}") from None


def _stored(message: imagestore_pb2.ImageStore) -> Stored:
    return Stored(
        message.name,
        dict(message.labels),
        tuple(map(from_platform, message.platforms)),
        message.all_metadata,
        message.manifest_limit,
        tuple(
            ExtraReference(each.name, each.is_prefix, each.allow_overwrite, each.add_digest, each.skip_named_digest)
            for each in message.extra_references
        ),
        tuple(Unpack(from_platform(each.platform), each.snapshotter) for each in message.unpacks),
    )


def _asking(stream: Stream) -> Ask:
    """Return what asks the client for credentials, one question at a time."""
    lock = asyncio.Lock()

    async def ask(host: str, reference: str) -> Credentials | None:
        try:
            async with lock, asyncio.timeout(ANSWER_TIMEOUT):
                await stream.send(payload(registry_pb2.AuthRequest(host=host, reference=reference)))
                message = await stream.receive()
        except TimeoutError:
            raise DeadlineExceeded(f"the client did not answer for credentials for {host}") from None
        if message is None:
            return None
        try:
            answer = registry_pb2.AuthResponse.FromString(message.value)
        except DecodeError:
            raise InvalidArgument("the client's answer for credentials does not parse") from None
        if answer.authType == registry_pb2.CREDENTIALS:
            return Credentials(answer.username, answer.secret)
        return Credentials("", answer.secret) if answer.authType == registry_pb2.REFRESH else None

    return ask


class _Follower:
    """Tells a client of steps: each kind at once, and how far one has come now and then."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._waiting: dict[tuple[str, str], Progress] = {}
        self._wake = asyncio.Event()

    def report(self, progress: Progress) -> None:
        """Take a step; a newer one about the same thing replaces what has not been sent."""
        self._waiting.pop((progress.event, progress.name), None)
        self._waiting[progress.event, progress.name] = progress
        self._wake.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send as long as the context lasts, and what is left at its end."""
        async with _beside(self._run()):
            yield
        await self._flush()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._flush()
            await asyncio.sleep(INTERVAL)

    async def _flush(self) -> None:
        steps, self._waiting = list(self._waiting.values()), {}
        try:
            for step in steps:
                await self._stream.send(payload(_progress(step)))
        except Cancelled:
            pass  # a client that does not look on any more does not stop the transfer


def _progress(step: Progress) -> progress_pb2.Progress:
    return progress_pb2.Progress(
        event=step.event,
        name=step.name,
        parents=step.parents,
        progress=step.progress,
        total=step.total,
        desc=to_descriptor(step.desc) if step.desc is not None else None,
    )


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run a coroutine as long as the context lasts; that its client has gone is not a failure."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
