"""From a layer's blob to its plain tar: decompression and hashing, each in a thread of its own."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import queue
import threading
from collections.abc import Callable
from typing import IO, Protocol, cast

import zstandard
from isal import igzip, isal_zlib

from windlass.errors import DataLoss, InvalidArgument
from windlass_diff import zstd

CHUNK = 256 << 10
"""Bytes per chunk of plain tar: two threads work on chunks that stay in the cache."""
READ_AHEAD = 16
"""Chunks that may wait for the applier; bounds the worker's memory."""
READ_SIZE = 128 << 10

GZIP_MAGIC = b"\x1f\x8b"
MAX_WINDOW = 128 << 20
"""Of zstd, the library's own limit: what a frame may make the decompressor allocate."""


class Source(Protocol):
    """Where chunks of plain tar come from."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, nothing at the end."""
        ...


class Blob(io.RawIOBase):
    """Reads a descriptor from its start without moving its offset, which others share."""

    def __init__(self, fd: int) -> None:
        """Read from ``fd``, which stays the caller's."""
        super().__init__()
        self._fd = fd
        self._offset = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    # Any: typeshed's buffer type exists for type checkers only.
    def readinto(self, buffer: object) -> int:
        """Fill ``buffer`` as far as the blob goes."""
        count = os.preadv(self._fd, [buffer], self._offset)  # type: ignore[list-item]  # the caller passes a buffer
        self._offset += count
        return count


def open_source(fd: int, compressed: bool) -> Source:
    """Return the plain tar inside the blob ``fd``; if it may be ``compressed``, its first bytes say how."""
    blob = Blob(fd)
    if compressed:
        magic = os.pread(fd, 4, 0)
        if magic.startswith(GZIP_MAGIC):
            source: Source = igzip.IGzipFile(fileobj=blob, mode="rb")  # type: ignore[no-untyped-call]  # has no types
            return source
        if zstd.is_frame(magic):
            decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
            frames = cast("IO[bytes]", zstd.WholeFrames(blob))  # read() is all that it calls
            return decompressor.stream_reader(frames, read_size=READ_SIZE, read_across_frames=True)
    return blob


class Pipeline:
    """Decompresses and hashes, in a thread each, while the caller works on earlier chunks."""

    def __init__(self, source: Source, progress: Callable[[], None]) -> None:
        """Start on ``source``; ``progress`` is called from `read` for every chunk."""
        self.size = 0
        self._source = source
        self._progress = progress
        self._hash = hashlib.sha256()
        self._error: Exception | None = None
        self._ended = False
        self._chunks: queue.Queue[bytes] = queue.Queue(READ_AHEAD)
        self._to_hash: queue.Queue[bytes] = queue.Queue(READ_AHEAD)
        self._hasher = threading.Thread(target=self._digest_chunks, name="hash", daemon=True)
        self._hasher.start()
        threading.Thread(target=self._produce, name="decompress", daemon=True).start()

    def read(self) -> bytes:
        """Return the next chunk, nothing at the end.

        Raises InvalidArgument for a damaged stream, DataLoss for a blob that cannot be read.
        """
        if self._ended:
            return b""
        chunk = self._chunks.get()
        self._progress()
        if not chunk:
            self._ended = True
            if self._error is not None:
                if isinstance(self._error, OSError) and not isinstance(self._error, gzip.BadGzipFile):
                    raise DataLoss(f"the blob cannot be read: {self._error}") from self._error
                raise InvalidArgument(f"compressed data is damaged: {self._error}") from self._error
        return chunk

    def digest(self) -> str:
        """Return the digest of the whole stream, which has to have been read to its end."""
        self._hasher.join()
        return "sha256:" + self._hash.hexdigest()

    def _produce(self) -> None:
        try:
            while chunk := self._source.read(CHUNK):
                self.size += len(chunk)
                self._to_hash.put(chunk)
                self._chunks.put(chunk)
        except (OSError, EOFError, isal_zlib.IsalError, zstandard.ZstdError, InvalidArgument) as error:  # type: ignore[misc]  # isal has no types
            self._error = error
        self._to_hash.put(b"")
        self._chunks.put(b"")

    def _digest_chunks(self) -> None:
        while chunk := self._to_hash.get():
            self._hash.update(chunk)
