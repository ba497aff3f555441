"""The Content service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from google.protobuf.empty_pb2 import Empty

from windlass.contracts.content import CHUNK, ContentStore, Info, Reader, RememberedContent, Status, Writer
from windlass.contracts.metadata import Metadata
from windlass.contracts.rpc import Call, Encoded
from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OutOfRange
from windlass.gate import offload, offloaded, take
from windlass.marks import quick
from windlass_api.containerd.services.content.v1 import content_pb2 as pb
from windlass_remote.messages import to_timestamp
from windlass_remote.records import to_blob
from windlass_services import encoded
from windlass_services.views import Views

OPEN_TIMEOUT = 60.0
BLOCK = 100
"""Blobs of one message of a list, as in containerd."""
TAKEN = 500
"""Blobs that one turn in a thread describes; a change of threads costs as much as ten of them."""


def status_to_proto(status: Status) -> pb.Status:
    """Return an ingest's description as a message."""
    return pb.Status(
        started_at=to_timestamp(status.started_at),
        updated_at=to_timestamp(status.updated_at),
        ref=status.ref,
        offset=status.offset,
        total=status.total,
        expected=status.expected,
    )


class Content:
    """``containerd.services.content.v1.Content``."""

    def __init__(self, metadata: Metadata) -> None:
        """Translate for ``metadata``."""
        self._views = Views(metadata.content)

    def _view(self, call: Call) -> RememberedContent:
        return self._views.at(call.namespace, call.lease)

    @quick
    async def info(self, request: pb.InfoRequest, call: Call) -> pb.InfoResponse | Encoded:
        """Describe a blob."""
        view = self._view(call)
        if (ready := await encoded.get(view, request.digest, "info_encoded")) is not None:
            return ready
        return pb.InfoResponse(info=to_blob(await offload(view.info, request.digest)))

    async def update(self, request: pb.UpdateRequest, call: Call) -> pb.UpdateResponse:
        """Change labels."""
        info = Info(request.info.digest, labels=dict(request.info.labels))
        updated = await offload(self._view(call).update, info, list(request.update_mask.paths))
        return pb.UpdateResponse(info=to_blob(updated))

    async def list(self, request: pb.ListContentRequest, call: Call) -> AsyncIterator[pb.ListContentResponse | Encoded]:
        """Return all that match, in blocks of 100."""
        view = self._view(call)
        if (ready := await encoded.walk(view, request.filters, BLOCK, TAKEN)) is not None:
            async for several in ready:
                yield several
            return
        walk = await offload(view.walk, list(request.filters))
        while block := await offload(take, walk, TAKEN):
            for start in range(0, len(block), BLOCK):
                yield pb.ListContentResponse(info=map(to_blob, block[start : start + BLOCK]))

    async def delete(self, request: pb.DeleteContentRequest, call: Call) -> Empty:
        """Forget a blob."""
        await offload(self._view(call).delete, request.digest)
        return Empty()

    async def read(self, request: pb.ReadContentRequest, call: Call) -> AsyncIterator[pb.ReadContentResponse]:
        """Return part of a blob; offsets in the responses count from 0 (docs/containerd 3.5)."""
        view = self._view(call)
        if (part := await offload(view.remembered, request.digest, max(request.offset, 0), request.size)) is not None:
            size, data = part
            _section(request, size)
            if data:
                yield pb.ReadContentResponse(data=data)
            return
        opened = offloaded(_open_section, deadline=OPEN_TIMEOUT, discard=_close_section)
        reader, start, end, data = await opened(view, request)
        if reader is None:
            if data:
                yield pb.ReadContentResponse(data=data)
            return
        position = start
        try:
            while data:
                yield pb.ReadContentResponse(offset=position - start, data=data)
                position += len(data)
                if position >= end:
                    return
                data = await offload(reader.read_at, position, min(CHUNK, end - position))
        finally:
            await _release(reader)

    async def status(self, request: pb.StatusRequest, call: Call) -> pb.StatusResponse:
        """Describe an ingest."""
        return pb.StatusResponse(status=status_to_proto(await offload(self._view(call).status, request.ref)))

    async def list_statuses(self, request: pb.ListStatusesRequest, call: Call) -> pb.ListStatusesResponse:
        """Describe all ingests that match."""
        statuses = await offload(self._view(call).statuses, list(request.filters))
        return pb.ListStatusesResponse(statuses=map(status_to_proto, statuses))

    async def write(
        self, requests: AsyncIterator[pb.WriteContentRequest], call: Call
    ) -> AsyncIterator[pb.WriteContentResponse]:
        """Carry out the messages of one writer; a stream that ends without commit leaves the ingest.

        The commit is held to the size and digest that were named last, by whichever message.
        If it is refused for one of them, the ingest is dropped: no retry could succeed
        with what was written.
        """
        view, writer, ref, total, expected = self._view(call), None, "", 0, ""
        try:
            async for request in requests:
                if writer is None:
                    ref = request.ref
                    writer = await _open(view, request)
                elif request.expected and request.expected != expected:
                    await _refuse_existing(view, ref, request.expected, writer)
                # a total below zero is none, as in containerd
                request.total = total = max(request.total, 0) or total
                request.expected = expected = request.expected or expected
                try:
                    answer = await offload(_carry_out, writer, request)
                except FailedPrecondition:
                    await offload(writer.close)
                    await offload(view.abort, ref)
                    raise
                if request.action == pb.COMMIT:
                    writer = None
                yield answer
                if writer is None:
                    return
        finally:
            if writer is not None:
                await _release(writer)

    async def abort(self, request: pb.AbortRequest, call: Call) -> Empty:
        """Give an ingest up."""
        await offload(self._view(call).abort, request.ref)
        return Empty()


def _section(request: pb.ReadContentRequest, size: int) -> tuple[int, int]:
    """Return the first and the last offset that are wanted of a blob of ``size`` bytes."""
    start = max(request.offset, 0)
    if start > size:
        raise OutOfRange(f"offset {start} is beyond the end of {request.digest}, which has {size} bytes")
    return start, min(start + request.size, size) if request.size > 0 else size


Section = tuple[Reader | None, int, int, bytes]
"""An open blob, None when all that is wanted has been read; the first and the last offset; and the first bytes."""


def _open_section(view: ContentStore, request: pb.ReadContentRequest) -> Section:
    """Open and begin to read in one go: most blobs that clients read are small, and need one visit to the store."""
    reader = view.reader(Descriptor("", request.digest, 0))
    more = False
    try:
        start, end = _section(request, reader.size)
        more = end - start > CHUNK
        return reader if more else None, start, end, reader.read_at(start, min(CHUNK, end - start))
    except BaseException:
        more = False
        raise
    finally:
        if not more:
            reader.close()


def _close_section(section: Section) -> None:
    if section[0] is not None:
        section[0].close()


async def _open(view: ContentStore, request: pb.WriteContentRequest) -> Writer:
    if not request.ref:
        raise InvalidArgument("the first message of a write must name a ref")
    opened = offloaded(view.writer, deadline=OPEN_TIMEOUT, discard=lambda writer: writer.close())
    return await opened(request.ref, max(request.total, 0), request.expected)


async def _release(opened: Reader | Writer) -> None:
    # grpc may cancel a call again while it cleans up; the close goes on and is done when its turn comes
    await asyncio.shield(offload(opened.close))


async def _refuse_existing(view: ContentStore, ref: str, expected: str, writer: Writer) -> None:
    """Raise AlreadyExists, with the ingest aborted, if the digest that a later message names is there."""
    try:
        await offload(view.info, expected)
    except NotFound:
        return
    await offload(writer.close)
    await offload(view.abort, ref)
    raise AlreadyExists(f"content {expected} is there already")


def _carry_out(writer: Writer, request: pb.WriteContentRequest) -> pb.WriteContentResponse:
    """Do all that a message asks for in one visit to a thread; after a commit the writer is closed."""
    if request.action != pb.STAT:
        _append(writer, request)
    # a digest of another algorithm than the ingest's is what the blob is called
    status, digest = writer.status(), (request.action == pb.COMMIT and request.expected) or writer.digest()
    if request.action == pb.COMMIT:
        writer.commit(request.total, request.expected, dict(request.labels))
        writer.close()
    return pb.WriteContentResponse(
        action=request.action,
        started_at=to_timestamp(status.started_at),
        updated_at=to_timestamp(status.updated_at),
        offset=status.offset,
        total=status.total or request.total,
        digest=digest,
    )


def _append(writer: Writer, request: pb.WriteContentRequest) -> None:
    offset = writer.status().offset
    if request.offset == 0 and offset:
        writer.truncate(0)  # offset 0 while data is there begins again, with data or without (docs/containerd 3.5)
    elif request.offset > 0 and request.offset != offset:
        raise OutOfRange(f"write at offset {request.offset}, but the ingest has {offset} bytes")
    if request.data:
        writer.write(request.data)
