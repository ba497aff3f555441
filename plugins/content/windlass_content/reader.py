"""Random access to one blob."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from windlass.contracts.content import ReadyReader
from windlass.errors import FailedPrecondition, InvalidArgument, NotFound
from windlass.typing import override
from windlass_storage.disks import disk_errors

CLOSED = -1


class BlobReader(ReadyReader):
    """Reads the file of a blob; owns its descriptor."""

    def __init__(self, path: Path, digest: str) -> None:
        self._path = path
        self._digest = digest
        # Keeps the descriptor open, and its number ours, while a read is under way in another thread.
        self._using = threading.Lock()
        if not path.is_file() or path.is_symlink():
            raise NotFound(f"content {digest} does not exist")
        try:
            with disk_errors(f"open content {digest}", path):
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise NotFound(f"content {digest} does not exist") from None
        self._size = os.fstat(self._descriptor).st_size

    @override
    @property
    def size(self) -> int:
        return self._size

    @override
    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise InvalidArgument(f"cannot read {length} bytes at {offset} of content {self._digest}")
        length = min(length, max(self._size - offset, 0))
        with self._using, disk_errors(f"read content {self._digest}", self._path):
            data = os.pread(self.fileno(), length, offset)
            # pread(2) returns at most 2 GiB.
            while len(data) < length and (more := os.pread(self.fileno(), length - len(data), offset + len(data))):
                data += more
        return data

    @override
    @override
    def read_ready(self, offset: int, length: int) -> bytes | None:
        if not self._using.acquire(blocking=False):
            return None
        try:
            data = bytearray(length)
            # preadv2(2): what is not in the page cache is EAGAIN, or missing from the end.
            taken = os.preadv(self.fileno(), [data], offset, os.RWF_NOWAIT)
        except OSError:
            return None
        finally:
            self._using.release()
        return bytes(data) if taken == length else None

    @override
    def fileno(self) -> int:
        if self._descriptor == CLOSED:
            raise FailedPrecondition(f"reader of content {self._digest} is closed")
        return self._descriptor

    @override
    def close(self) -> None:
        with self._using:
            descriptor, self._descriptor = self._descriptor, CLOSED
            if descriptor != CLOSED:
                os.close(descriptor)
