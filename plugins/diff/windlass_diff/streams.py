"""From a layer's blob to its plain tar: decompression and hashing, each in a thread of its own."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import queue
import threading
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Protocol, cast

import zstandard
from isal import igzip, isal_zlib

from windlass.errors import DataLoss, InvalidArgument, OutOfRange
from windlass_diff import headers, zstd

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK = 256 << 10
"""Bytes per chunk of plain tar: two threads work on chunks that stay in the cache."""
READ_AHEAD = 16
"""Chunks that may wait for the applier; bounds the worker's memory."""
READ_SIZE = 128 << 10
WAITING = 1.0
"""Seconds without data after which the caller hears of it."""

GZIP_MAGIC = b"\x1f\x8b"
MAX_WINDOW = 512 << 20
"""What a frame of zstd may make the decompressor allocate, as much as containerd allows."""
TOO_LARGE = "too much memory"
"""How the library says that a frame asks for more."""


class Source(Protocol):
    """Where chunks of plain tar come from."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, nothing at the end."""
        ...


class Input(io.RawIOBase):
    """Bytes from a descriptor, the first of which can be looked at before they are read."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def peek(self, size: int) -> bytes:
        """Return the first ``size`` bytes, fewer where there are not so many; nothing has been read yet."""
        raise NotImplementedError


class Blob(Input):
    """Reads a descriptor from its start without moving its offset, which others share."""

    def __init__(self, fd: int) -> None:
        """Read from ``fd``, which stays the caller's."""
        super().__init__()
        self._fd = fd
        self._offset = 0

    def peek(self, size: int) -> bytes:
        """Return the first bytes."""
        return os.pread(self._fd, size, 0)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` as far as the blob goes."""
        count = os.preadv(self._fd, [buffer], self._offset)
        self._offset += count
        return count


class Pipe(Input):
    """Reads a pipe to its end."""

    def __init__(self, fd: int) -> None:
        """Read from ``fd``, which stays the caller's."""
        super().__init__()
        self._fd = fd
        self._head = b""

    def peek(self, size: int) -> bytes:
        """Return the first bytes."""
        while len(self._head) < size and (more := os.read(self._fd, size - len(self._head))):
            self._head += more
        return self._head

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` with what there is, waiting for some; nothing is the end."""
        if self._head:
            view = memoryview(buffer)
            count = min(len(view), len(self._head))
            view[:count], self._head = self._head[:count], self._head[count:]
            return count
        return os.readv(self._fd, [buffer])


def open_source(blob: Input, compressed: bool) -> Source:
    """Return the plain tar inside ``blob``; if it may be ``compressed``, its first bytes say how.

    What is called plain and begins as a compressed stream, but not as a tar, is compressed: some builders name their
    layers wrongly, and the diff ID says whether that was right.
    """
    head = blob.peek(headers.BLOCK)
    magic = head[:4]
    if compressed or not _begins_as_tar(head):
        if magic.startswith(GZIP_MAGIC):
            source: Source = igzip.IGzipFile(fileobj=blob, mode="rb")  # type: ignore[no-untyped-call]  # has no types
            return source
        if zstd.is_frame(magic):
            decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
            frames = cast("IO[bytes]", zstd.WholeFrames(blob))  # read() is all that it calls
            return decompressor.stream_reader(frames, read_size=READ_SIZE, read_across_frames=True)
    return blob


def _begins_as_tar(head: bytes) -> bool:
    try:
        return len(head) == headers.BLOCK and headers.is_header(head)
    except InvalidArgument:
        return False


class Pipeline:
    """Decompresses and hashes, in a thread each, while the caller works on earlier chunks."""

    def __init__(
        self, source: Callable[[], Source], progress: Callable[[], None], waiting: Callable[[], None] | None = None
    ) -> None:
        """Start on what ``source`` opens.

        `read` calls ``progress`` for every chunk, and ``waiting`` for each second without one.
        """
        self.size = 0
        self._source = source
        self._progress = progress
        self._waiting = waiting
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

        Raises InvalidArgument for a damaged stream, OutOfRange for one that asks for too much memory, DataLoss for a
        blob that cannot be read.
        """
        if self._ended:
            return b""
        chunk = self._next()
        self._progress()
        if not chunk:
            self._ended = True
            if self._error is not None:
                if isinstance(self._error, OSError) and not isinstance(self._error, gzip.BadGzipFile):
                    raise DataLoss(f"the blob cannot be read: {self._error}") from self._error
                if TOO_LARGE in str(self._error):
                    limit = f"{MAX_WINDOW >> 20} MiB"
                    raise OutOfRange(f"a zstd frame needs more memory than the {limit} that are allowed; pack it anew")
                raise InvalidArgument(f"compressed data is damaged: {self._error}") from self._error
        return chunk

    def _next(self) -> bytes:
        if self._waiting is None:
            return self._chunks.get()
        while True:
            try:
                return self._chunks.get(timeout=WAITING)
            except queue.Empty:
                self._waiting()

    def digest(self) -> str:
        """Return the digest of the whole stream, which has to have been read to its end."""
        self._hasher.join()
        return "sha256:" + self._hash.hexdigest()

    def _produce(self) -> None:
        try:
            source = self._source()
            while chunk := source.read(CHUNK):
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
