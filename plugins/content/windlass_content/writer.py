"""The open end of an ingest: hashes what is written, and makes it a blob."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from windlass import faults
from windlass.contracts.content import CHUNK, Status, Writer
from windlass.contracts.values import check_digest, check_labels
from windlass.errors import AlreadyExists, DataLoss, FailedPrecondition, Unimplemented
from windlass.typing import override
from windlass_content import ingest
from windlass_content.disk import write_all
from windlass_storage.disks import disk_errors

CLOSED = -1
INGEST_MODE, BLOB_MODE = 0o644, 0o444


class Publisher(Protocol):
    """Takes finished data into the blobs."""

    def publish(self, data: Path, digest: str, labels: Mapping[str, str]) -> bool:
        """Rename ``data`` to be the blob, unless that exists; tells whether it did so."""
        ...

    def settle(self, digest: str) -> None:
        """Make the blob's name durable."""
        ...


class IngestWriter(Writer):
    """Owns the descriptor of an ingest's data and, by ``release``, the lock of its ref."""

    def __init__(
        self, path: Path, status: Status, publisher: Publisher, release: Callable[[], None], algorithm: str
    ) -> None:
        self._path = path
        self._ref = status.ref
        self._total = status.total
        self._expected = status.expected
        self._started_at = status.started_at
        self._updated_at = status.updated_at
        self._publisher = publisher
        self._release = release
        # A caller that was cancelled closes while its last write is still under way in a thread.
        self._using = threading.RLock()
        self._algorithm = algorithm
        self._descriptor = os.open(path / ingest.DATA, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self._hash, self._offset = self._hash_data(algorithm)
            os.lseek(self._descriptor, self._offset, os.SEEK_SET)
        except BaseException:
            os.close(self._descriptor)
            raise

    @override
    def write(self, data: bytes | memoryview) -> int:
        """Append ``data``; on failure the ingest is as it was."""
        with self._using, disk_errors(f"write to ingest {self._ref}", self._path):
            descriptor = self._open_descriptor()
            try:
                faults.point("content.write")
                write_all(descriptor, data)
            except OSError:
                self._cut(descriptor, self._offset)
                raise
            self._hash.update(data)
            length = memoryview(data).nbytes
            self._offset += length
            self._updated_at = time.time_ns()
        return length

    @override
    def digest(self) -> str:
        return f"{self._algorithm}:{self._hash.hexdigest()}"

    @override
    def status(self) -> Status:
        return Status(self._ref, self._offset, self._total, self._expected, self._started_at, self._updated_at)

    @override
    def truncate(self, size: int) -> None:
        if size != 0:
            raise Unimplemented(f"cannot truncate ingest {self._ref} to {size} bytes, only to 0")
        with self._using, disk_errors(f"truncate ingest {self._ref}", self._path):
            self._cut(self._open_descriptor(), 0)
            self._hash = hashlib.new(self._algorithm)
            self._offset = 0
            self._updated_at = time.time_ns()

    @override
    def commit(self, size: int = 0, expected: str = "", labels: Mapping[str, str] | None = None) -> None:
        """Make the ingest a blob; refused, the writer stays open."""
        check_labels(labels or {})
        if expected:
            check_digest(expected)
        with self._using, disk_errors(f"commit ingest {self._ref}", self._path):
            descriptor = self._open_descriptor()
            self._check_length(descriptor)
            digest = self._check(size, expected)
            published = self._publish(descriptor, digest, labels or {})
            # From here the data may be a blob, which must not be written to.
            self._finish()
            # Also when the blob existed: the writer that renamed it may not have come to this yet.
            self._publisher.settle(digest)
        if not published:
            raise AlreadyExists(f"content {digest} exists already")

    @override
    def close(self) -> None:
        with self._using:
            if self._descriptor == CLOSED:
                return
            # The time is a courtesy: the data's own is nearly the same, and a full disk must not keep the ref locked.
            with suppress(OSError):
                ingest.touch(self._path, self._updated_at)
            self._let_go()

    def _cut(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)
        os.lseek(descriptor, size, os.SEEK_SET)

    def _publish(self, descriptor: int, digest: str, labels: Mapping[str, str]) -> bool:
        now = time.time_ns()
        os.utime(descriptor, ns=(now, now))
        os.fchmod(descriptor, BLOB_MODE)
        try:
            faults.point("content.sync")
            os.fsync(descriptor)
            return self._publisher.publish(self._path / ingest.DATA, digest, labels)
        except OSError:
            os.fchmod(descriptor, INGEST_MODE)
            raise

    def _check_length(self, descriptor: int) -> None:
        if (found := os.fstat(descriptor).st_size) != self._offset:
            raise DataLoss(
                f"ingest {self._ref} has {found} bytes on disk, {self._offset} were written; truncate and write again"
            )

    def _check(self, size: int, expected: str) -> str:
        """Return the digest to publish under; raises FailedPrecondition."""
        if size > 0 and size != self._offset:
            raise FailedPrecondition(f"ingest {self._ref} has {self._offset} bytes, expected {size}")
        digest = self.digest()
        if expected and not expected.startswith(f"{self._algorithm}:"):
            algorithm = expected.partition(":")[0]
            digest = f"{algorithm}:{self._hash_data(algorithm)[0].hexdigest()}"
        if expected and digest != expected:
            raise FailedPrecondition(f"ingest {self._ref} has digest {digest}, expected {expected}")
        return digest

    def _hash_data(self, algorithm: str) -> tuple[hashlib._Hash, int]:
        """Hash what is in the file; returns the length too."""
        result, offset = hashlib.new(algorithm), 0
        while chunk := os.pread(self._descriptor, CHUNK, offset):
            result.update(chunk)
            offset += len(chunk)
        return result, offset

    def _open_descriptor(self) -> int:
        if self._descriptor == CLOSED:
            raise FailedPrecondition(f"writer of ingest {self._ref} is closed; open the ref again")
        return self._descriptor

    def _finish(self) -> None:
        try:
            ingest.remove(self._path)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, CLOSED
        os.close(descriptor)
        self._release()
