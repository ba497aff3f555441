"""A content store in memory, to put metadata in front of."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from windlass.contracts.content import ContentStore, Info, Reader, Status, Writer
from windlass.contracts.values import Descriptor, check_digest, check_labels
from windlass.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
    Unimplemented,
)
from windlass.filters import expressions as filter_expressions
from windlass.filters.fieldpaths import kept_labels, updated_labels


@dataclass
class Ingest:
    status: Status
    data: bytearray = field(default_factory=bytearray)
    writer: MemoryWriter | None = None

    def described(self) -> Status:
        return replace(self.status, offset=len(self.data))


def _fields(ref: str) -> filter_expressions.Adaptor:
    """Return what a filter may ask of an ingest: its ref."""
    return lambda path: (ref, path == ("ref",))


class MemoryContent(ContentStore):
    """A store whose methods call ``before`` with their name, so that a test can look in, fail or wait there."""

    def __init__(self) -> None:
        self.blobs: dict[str, tuple[Info, bytes]] = {}
        self.ingests: dict[str, Ingest] = {}
        self.lock = threading.RLock()
        self.before: Callable[[str, str], None] = lambda method, name: None

    def info(self, digest: str) -> Info:
        check_digest(digest)
        return self._blob(digest)[0]

    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        check_digest(info.digest)
        with self.lock:
            old, data = self._blob(info.digest)
            labels = updated_labels(old.labels, info.labels, fieldpaths, info.digest)
            new = replace(old, labels=labels, updated_at=time.time_ns())
            self.blobs[info.digest] = new, data
        return new

    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        accepts = filter_expressions.parse(filters)
        self.before("walk", "")
        infos = [info for info, _ in self.blobs.copy().values()]
        return (info for info in infos if accepts(partial(_field, info)))

    def delete(self, digest: str) -> None:
        check_digest(digest)
        self.before("delete", digest)
        with self.lock:
            self._blob(digest)
            del self.blobs[digest]

    def reader(self, desc: Descriptor) -> Reader:
        check_digest(desc.digest)
        return MemoryReader(self._blob(desc.digest)[1])

    def writer(self, ref: str, size: int = 0, expected: str = "", media_type: str = "") -> Writer:
        if not ref:
            raise InvalidArgument("ref must not be empty")
        self.before("writer", ref)
        with self.lock:
            if expected in self.blobs:
                raise AlreadyExists(f"content {expected} already exists")
            moment = time.time_ns()
            ingest = self.ingests.setdefault(ref, Ingest(Status(ref, 0, size, expected, moment, moment)))
            if ingest.writer:
                raise Unavailable(f"ref {ref} is locked")
            if 0 < size != ingest.status.total > 0:
                ingest = self.ingests[ref] = Ingest(Status(ref, 0, size, expected, moment, moment))
            ingest.writer = MemoryWriter(self, ref, ingest)
            return ingest.writer

    def status(self, ref: str) -> Status:
        return self._ingest(ref).described()

    def statuses(self, filters: Sequence[str] = ()) -> list[Status]:
        accepts = filter_expressions.parse(filters)
        return [ingest.described() for ref, ingest in self.ingests.copy().items() if accepts(_fields(ref))]

    def abort(self, ref: str) -> None:
        with self.lock:
            if self._ingest(ref).writer:
                raise Unavailable(f"ref {ref} is locked")
            del self.ingests[ref]

    def _blob(self, digest: str) -> tuple[Info, bytes]:
        if digest not in self.blobs:
            raise NotFound(f"content {digest} does not exist")
        return self.blobs[digest]

    def _ingest(self, ref: str) -> Ingest:
        if ref not in self.ingests:
            raise NotFound(f"ingest {ref} does not exist")
        return self.ingests[ref]


class MemoryWriter(Writer):
    def __init__(self, store: MemoryContent, ref: str, ingest: Ingest) -> None:
        self.store, self.ref, self.ingest = store, ref, ingest

    def write(self, data: bytes | memoryview) -> int:
        self._check_open()
        self.ingest.data += data
        self.ingest.status = replace(self.ingest.status, updated_at=time.time_ns())
        return len(data)

    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.ingest.data).hexdigest()}"

    def status(self) -> Status:
        return self.ingest.described()

    def truncate(self, size: int) -> None:
        if size:
            raise Unimplemented("only 0 is supported")
        self._check_open()
        self.ingest.data.clear()

    def commit(self, size: int = 0, expected: str = "", labels: Mapping[str, str] | None = None) -> None:
        self._check_open()
        check_labels(labels or {})
        self.store.before("commit", self.ref)
        algorithm = expected.partition(":")[0] or "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, self.ingest.data).hexdigest()}"
        if (size and size != len(self.ingest.data)) or (expected and expected != digest):
            raise FailedPrecondition(f"ref {self.ref} is not what was expected")
        with self.store.lock:
            del self.store.ingests[self.ref]
            self.close()
            if digest in self.store.blobs:
                raise AlreadyExists(f"content {digest} already exists")
            moment = time.time_ns()
            info = Info(digest, len(self.ingest.data), moment, moment, kept_labels(labels or {}))
            self.store.blobs[digest] = info, bytes(self.ingest.data)
        self.store.before("committed", self.ref)

    def close(self) -> None:
        if self.ingest.writer is self:
            self.ingest.writer = None

    def _check_open(self) -> None:
        if self.ingest.writer is not self:
            raise FailedPrecondition(f"the writer of ref {self.ref} is closed")


class MemoryReader(Reader):
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._descriptor = -1

    @property
    def size(self) -> int:
        return len(self._data)

    def read_at(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def fileno(self) -> int:
        if self._descriptor < 0:
            self._descriptor = os.memfd_create("blob")
            os.pwrite(self._descriptor, self._data, 0)
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _field(info: Info, path: Sequence[str]) -> tuple[str, bool]:
    if tuple(path) == ("digest",):
        return info.digest, True
    return filter_expressions.label_of(info.labels, path) if path[0] == "labels" else ("", False)
