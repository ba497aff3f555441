"""The content service: reading blobs, and writing them with digest and size verified by the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask

from windlass.errors import AlreadyExists, DataLoss, Error, NotFound, OutOfRange
from windlass_api.containerd.services.content.v1 import content_pb2 as pb
from windlass_api.containerd.services.content.v1.content_pb2_grpc import ContentStub
from windlass_client.connection import Connection
from windlass_images.turns import Locked, Turn

CHUNK = 1 << 20
COMMIT_TIMEOUT = 300.0
"""A commit waits for the disk."""


class Content:
    """Blobs of the namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = ContentStub(connection.channel)

    async def info(self, digest: str) -> pb.Info:
        """Return size and labels of a blob. Raises NotFound."""
        return (await self._connection.call(self._stub.Info, pb.InfoRequest(digest=digest))).info

    async def list(self, *filters: str) -> Sequence[pb.Info]:
        """Return the blobs that match one of the filters."""
        request = pb.ListContentRequest(filters=filters)
        return [info async for block in self._connection.stream(self._stub.List, request) for info in block.info]

    async def label(self, digest: str, labels: Mapping[str, str]) -> None:
        """Set labels of a blob; an empty value removes one."""
        info = pb.Info(digest=digest, labels=labels)
        mask = FieldMask(paths=[f"labels.{label}" for label in labels])
        await self._connection.call(self._stub.Update, pb.UpdateRequest(info=info, update_mask=mask))

    async def delete(self, digest: str) -> None:
        """Forget a blob in this namespace. Raises NotFound."""
        await self._connection.call(self._stub.Delete, pb.DeleteContentRequest(digest=digest))

    async def read(self, digest: str, limit: int) -> bytes:
        """Return a whole blob. Raises OutOfRange when it is longer than ``limit``."""
        parts, length = [], 0
        async for response in self._connection.stream(self._stub.Read, pb.ReadContentRequest(digest=digest)):
            length += len(response.data)
            if length > limit:
                raise OutOfRange(f"blob {digest} is longer than {limit} bytes")
            parts.append(response.data)
        return b"".join(parts)

    async def head(self, digest: str, size: int) -> bytes:
        """Return the first bytes of a blob."""
        request = pb.ReadContentRequest(digest=digest, size=size)
        return b"".join([response.data async for response in self._connection.stream(self._stub.Read, request)])

    async def chunks(self, digest: str) -> AsyncIterator[bytes]:
        """Yield a blob in parts, however long it takes. Raises NotFound."""
        async for response in self._connection.stream(self._stub.Read, pb.ReadContentRequest(digest=digest), None):
            yield response.data

    async def statuses(self, *filters: str) -> Sequence[pb.Status]:
        """Return the ingests that match one of the filters."""
        request = pb.ListStatusesRequest(filters=filters)
        return (await self._connection.call(self._stub.ListStatuses, request)).statuses

    async def abort(self, ref: str) -> None:
        """Throw an ingest away; none under that ref is not an error."""
        try:
            await self._connection.call(self._stub.Abort, pb.AbortRequest(ref=ref))
        except NotFound:
            pass

    async def write(
        self,
        ref: str,
        chunks: AsyncIterator[bytes],
        size: int,
        expected: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Write a blob of ``size`` bytes and return its digest; nothing is kept of one that fails.

        ``expected`` is its digest where that is known: a blob that is there already is not sent again,
        and gets ``labels`` too. An ingest that another client writes is waited for.
        """
        first = await anext(chunks, None)
        turn = Turn(ref, lambda: self._offset(ref))
        while True:
            call = self._stub.Write(metadata=self._connection.metadata)
            writer = _Writer(self._connection, call, ref, size, expected, labels or {})
            try:
                return await writer.send(first, chunks)
            except AlreadyExists:
                if not expected:
                    raise
                if labels:
                    await self.label(expected, labels)
                return expected
            except Locked:
                await turn.wait()
            except BaseException:
                call.cancel()
                await asyncio.shield(self._give_up(ref))
                raise
            finally:
                call.cancel()

    async def _offset(self, ref: str) -> int:
        response = await self._connection.call(self._stub.Status, pb.StatusRequest(ref=ref))
        return response.status.offset

    async def _give_up(self, ref: str) -> None:
        try:
            await self.abort(ref)
        except Error:
            pass  # the first failure is what the caller has to know; the ingest goes with its lease


class _Writer:
    """The exchange of one write: an action goes out, its answer comes back."""

    def __init__(
        self,
        connection: Connection,
        call: grpc.aio.StreamStreamCall[pb.WriteContentRequest, pb.WriteContentResponse],
        ref: str,
        size: int,
        expected: str,
        labels: Mapping[str, str],
    ) -> None:
        self._connection = connection
        self._call = call
        self._ref = ref
        self._size = size
        self._expected = expected
        self._labels = labels
        self._begun = False

    async def send(self, first: bytes | None, chunks: AsyncIterator[bytes]) -> str:
        """Send a blob that begins with ``first``. Raises Locked when nothing has been sent yet."""
        offset = 0
        if self._size > CHUNK:
            # A blob that another namespace shares with us needs no data (docs/containerd 3.5).
            status = await self._ask(pb.STAT, 0, b"")
            if status.offset == self._size:
                return (await self._ask(pb.COMMIT, self._size, b"")).digest
        chunk = first
        while chunk is not None:
            if offset + len(chunk) >= self._size:
                return await self._commit(offset, chunk)
            offset = (await self._ask(pb.WRITE, offset, chunk)).offset
            chunk = await anext(chunks, None)
        if offset < self._size:
            raise DataLoss(f"{self._ref} ends after {offset} of {self._size} bytes")
        return await self._commit(offset, b"")

    async def _commit(self, offset: int, data: bytes) -> str:
        return (await self._ask(pb.COMMIT, offset, data)).digest or self._expected

    async def _ask(self, action: pb.WriteAction.ValueType, offset: int, data: bytes) -> pb.WriteContentResponse:
        request = pb.WriteContentRequest(
            action=action, ref=self._ref, total=self._size, expected=self._expected, offset=offset, data=data
        )
        if action == pb.COMMIT:
            request.labels.update(self._labels)
        timeout = COMMIT_TIMEOUT if action == pb.COMMIT else 0
        async with self._connection.step(f"writing {self._ref}", timeout):
            try:
                await self._call.write(request)
            except asyncio.InvalidStateError:
                pass  # the daemon has ended the call; reading tells why
            try:
                response = await self._call.read()
            except grpc.aio.AioRpcError as error:
                if not self._begun and error.code() is grpc.StatusCode.UNAVAILABLE:
                    raise Locked from None
                raise
        self._begun = True
        if not isinstance(response, pb.WriteContentResponse):
            raise DataLoss(f"{self._ref}: the daemon ended the write before its commit")
        return response
