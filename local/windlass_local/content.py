"""The blobs of a namespace, over the contract of content stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from windlass.contracts.content import CHUNK, ContentStore, Info, Reader, Writer
from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, DataLoss
from windlass.gate import offload, offloaded
from windlass.typing import override
from windlass_images.store import Content
from windlass_images.turns import PATIENCE, Locked, Turn
from windlass_local import blobs
from windlass_local.waiting import settled

COMMIT_TIMEOUT = 1800.0
OPEN_TIMEOUT = 60.0


class LocalContent(Content):
    """Blobs behind a view of the metadata store."""

    def __init__(self, view: ContentStore, patience: float = PATIENCE) -> None:
        """Wait ``patience`` seconds for another writer of the same ingest to get on; 0 means without end."""
        self.view = view
        self._patience = patience

    @override
    async def info(self, digest: str) -> Info:
        return await offload(self.view.info, digest)

    @override
    async def label(self, digest: str, labels: Mapping[str, str]) -> None:
        if labels:
            await offload(self.view.update, Info(digest, labels=labels), [f"labels.{key}" for key in labels])

    @override
    async def read(self, digest: str, limit: int) -> bytes:
        return await offload(blobs.read, self.view, digest, limit)

    @override
    async def head(self, digest: str, size: int) -> bytes:
        return await offload(blobs.head, self.view, digest, size)

    @override
    async def chunks(self, digest: str) -> AsyncIterator[bytes]:
        reader = await offloaded(self.view.reader, deadline=OPEN_TIMEOUT, discard=_close)(Descriptor("", digest, 0))
        try:
            offset = 0
            while data := await offload(reader.read_at, offset, CHUNK):
                offset += len(data)
                yield data
        finally:
            await asyncio.shield(offload(reader.close))

    @override
    async def write(
        self,
        ref: str,
        chunks: AsyncIterator[bytes],
        size: int,
        expected: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> str:
        try:
            writer = await self._writer(ref, size, expected)
        except AlreadyExists:
            await self.label(expected, labels or {})
            return expected
        try:
            return await self._fill(writer, ref, chunks, Descriptor("", expected, size), labels or {})
        except BaseException:
            await asyncio.shield(offload(blobs.close_and_abort, self.view, writer, ref))
            raise

    async def _fill(
        self, writer: Writer, ref: str, chunks: AsyncIterator[bytes], wanted: Descriptor, labels: Mapping[str, str]
    ) -> str:
        if writer.status().offset:
            await settled(offload(writer.truncate, 0))
        async for chunk in chunks:
            await settled(offload(writer.write, chunk))
        offset = writer.status().offset
        if offset != wanted.size:
            raise DataLoss(f"ingest {ref} has {offset} bytes instead of {wanted.size}")
        digest = await offload(writer.digest)
        desc = Descriptor("", wanted.digest or digest, wanted.size)
        await settled(offloaded(blobs.commit_or_label, deadline=COMMIT_TIMEOUT)(self.view, writer, desc, labels))
        return digest

    async def _writer(self, ref: str, size: int, expected: str) -> Writer:
        turn = self.turn(ref)
        while True:
            opening = offloaded(blobs.opened, deadline=OPEN_TIMEOUT, discard=_close)
            try:
                return await opening(self.view, ref, size, expected)
            except Locked:
                await turn.wait()

    def turn(self, ref: str) -> Turn:
        """Return the wait for an ingest that another client writes."""

        async def offset() -> int:
            return (await offload(self.view.status, ref)).offset

        return Turn(ref, offset, self._patience)


def _close(opened: Reader | Writer) -> None:
    opened.close()
