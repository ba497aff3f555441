"""The open end of a namespace's ingest, virtual while another namespace's bytes are as good."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace

from windlass.contracts.content import CHUNK, ContentStore, Status, Writer
from windlass.contracts.values import Descriptor, check_digest, check_labels
from windlass.errors import AlreadyExists, FailedPrecondition, Unimplemented
from windlass.filters.fieldpaths import kept_labels
from windlass.typing import override
from windlass_api.containerd.events.content_pb2 import ContentCreate
from windlass_metadata import trash
from windlass_metadata.ingest_rows import BLOBS, IngestRow, IngestRows
from windlass_metadata.ledger import Ledger
from windlass_metadata.request_lease import RequestLease


class IngestWriter(Writer):
    """Writes to the content store, and to the metadata at commit.

    A virtual writer has no bytes of its own: it is complete from the start. The
    first write or truncation turns it into a private copy.

    Invariants:

    - Until `_end` the ref is among the ledger's open refs: no other writer opens
      the ingest, and no collection deletes its row.
    - A virtual writer's row names its blob, and from `_reserve` to `_finish` any
      writer's row does: a collection keeps that blob, though no namespace may
      have it yet.
    - Nothing is locked while the store commits. A crash in between leaves the row
      with its digest, and `store.recover` discards the blob.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: ContentStore,
        ingests: IngestRows,
        namespace: str,
        lease: RequestLease,
        row: IngestRow,
        inner: Writer | None,
        media_type: str,
    ) -> None:
        """Own ``inner``, a writer of ``store``, or be virtual without; the ref has been taken."""
        self._ledger = ledger
        self._store = store
        self._ingests = ingests
        self._namespace = namespace
        self._lease = lease
        self._row = row
        self._inner = inner
        self._media_type = media_type
        self._closed = False

    @override
    def write(self, data: bytes | memoryview) -> int:
        self._check_open()
        return (self._inner or self._own_copy(self._row.size)).write(data)

    @override
    def digest(self) -> str:
        return self._inner.digest() if self._inner else self._row.digest

    @override
    def status(self) -> Status:
        if self._inner:
            return replace(self._inner.status(), ref=self._row.ref)
        row = self._row
        return Status(row.ref, row.size, row.size, row.digest, row.started_at, row.started_at)

    @override
    def truncate(self, size: int) -> None:
        if size:
            raise Unimplemented(f"ref {self._row.ref} cannot be truncated to {size} bytes, only to 0")
        self._check_open()
        (self._inner or self._own_copy(0)).truncate(0)

    @override
    def commit(self, size: int = 0, expected: str = "", labels: Mapping[str, str] | None = None) -> None:
        self._check_open()
        check_labels(labels or {})
        kept = kept_labels(labels or {})
        if expected:
            check_digest(expected)
        digest, length = self._checked(size, expected)
        self._reserve(digest)
        if self._inner:
            self._commit_inner(self._inner, length, digest)
        created = self._ledger.settle(lambda db: self._finish(db, digest, length, kept))
        self._end()
        if not created:
            raise AlreadyExists(f"content {digest} already exists")
        event = ContentCreate(digest=digest, size=length, mediaType=self._media_type)
        self._ledger.publish(self._namespace, "/content/create", event)

    @override
    def close(self) -> None:
        if self._closed:
            return
        try:
            if self._inner:
                self._inner.close()
        finally:
            self._end()

    def _check_open(self) -> None:
        if self._closed:
            raise FailedPrecondition(f"the writer of ref {self._row.ref} is closed")

    def _checked(self, size: int, expected: str) -> tuple[str, int]:
        """Return digest and size of what would be committed. Raises FailedPrecondition."""
        length, digest = self.status().offset, self.digest()
        if size and size != length:
            raise FailedPrecondition(f"ref {self._row.ref} has {length} bytes, not {size} as expected")
        if expected and expected != digest:
            if self._inner is None or expected.partition(":")[0] == digest.partition(":")[0]:
                raise FailedPrecondition(f"ref {self._row.ref} has digest {digest}, not {expected} as expected")
            digest = expected  # of another algorithm: the content store computes it again
        return digest, length

    def _reserve(self, digest: str) -> None:
        """Say that the blob is about to be needed, before it is there: collection would remove it."""
        while not self._ledger.reserve(lambda db: self._need(db, digest)):
            if self._ledger.settle(lambda db: self._give_up(db, digest)):
                self.close()
                raise AlreadyExists(f"content {digest} already exists")

    def _need(self, db: sqlite3.Connection, digest: str) -> bool:
        """Return False for a blob that the namespace has already."""
        self._lease.require(db)
        if BLOBS.has(db, self._namespace, digest):
            return False
        trash.rescue(db, trash.BLOB, "", digest)
        if self._inner:
            self._ingests.set_digest(db, self._row.ref, digest)
        else:
            self._ingests.existing(db, self._row.ref)
        return True

    def _give_up(self, db: sqlite3.Connection, digest: str) -> bool:
        """Forget the ingest for a blob that is there, unless that has been collected meanwhile."""
        if not BLOBS.has(db, self._namespace, digest):
            return False
        self._close_row(db, digest)
        return True

    def _commit_inner(self, inner: Writer, length: int, digest: str) -> None:
        try:
            inner.commit(length, digest)
        except AlreadyExists:
            pass  # another namespace has it, or an earlier attempt of this one came so far
        except BaseException:
            self._ledger.release(lambda db: self._ingests.set_digest(db, self._row.ref, ""))
            raise

    def _finish(self, db: sqlite3.Connection, digest: str, length: int, labels: dict[str, str]) -> bool:
        """Record the blob, unless another writer has committed the same bytes meanwhile."""
        if BLOBS.has(db, self._namespace, digest):
            self._close_row(db, digest)
            return False
        self._ingests.commit(db, self._row, digest, length, labels)
        return True

    def _close_row(self, db: sqlite3.Connection, digest: str) -> None:
        self._ingests.close(db, self._row)
        self._lease.hold(db, "content", digest)

    def _own_copy(self, length: int) -> Writer:
        """Stop being virtual: open an ingest with the first ``length`` bytes of the blob."""
        inner = self._store.writer(self._row.backend, self._row.size)
        try:
            inner.truncate(0)
            self._copy(inner, length)
            self._ledger.release(lambda db: self._ingests.set_digest(db, self._row.ref, ""))
        except BaseException:
            inner.close()
            raise
        self._inner = inner
        return inner

    def _copy(self, inner: Writer, length: int) -> None:
        if not length:
            return
        reader = self._store.reader(Descriptor("", self._row.digest, self._row.size))
        try:
            for offset in range(0, length, CHUNK):
                inner.write(reader.read_at(offset, min(CHUNK, length - offset)))
        finally:
            reader.close()

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            self._ledger.drop_ref(self._namespace, self._row.ref)
