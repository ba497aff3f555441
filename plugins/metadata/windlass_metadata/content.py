"""One namespace's view of the content store (docs/containerd 3.5).

A blob is in a namespace when it has a row there; its bytes may be shared with
others. Deleting takes the row away, the bytes go with garbage collection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace

from windlass.contracts.content import ContentStore, Info, Reader, RememberedContent, Status, Writer
from windlass.contracts.namespaces import LABEL_SHAREABLE
from windlass.contracts.values import Descriptor, check_digest
from windlass.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from windlass.filters.fieldpaths import updated_labels
from windlass.plugin import quick
from windlass.typing import override
from windlass_api.containerd.events.content_pb2 import ContentDelete
from windlass_metadata import nodes, trash
from windlass_metadata.columns import decode_map, now
from windlass_metadata.fields import Visible
from windlass_metadata.ingest_rows import BLOBS, IngestRow, IngestRows
from windlass_metadata.ledger import Ledger
from windlass_metadata.open_blobs import OpenBlobs
from windlass_metadata.remembered import Remembered
from windlass_metadata.request_lease import RequestLease
from windlass_metadata.small_blobs import SmallBlobs
from windlass_metadata.writer import IngestWriter
from windlass_remote.records import to_blob

MAX_REF = 64 << 10
"""Bytes of a ref, which is hashed for its directory and kept in a row."""


BLOB_FIELDS = Visible[Info]({"digest": "digest"}, {"labels": "labels"})
"""Filters may ask for the size of a blob, which never matches, as in containerd."""
ENCODED = Remembered(BLOBS, to_blob)
INGEST_FIELDS = Visible[IngestRow]({"ref": "ref"}, {})


class Content(RememberedContent):
    """A namespace's blobs and ingests; what is written is held by a lease if one is given."""

    def __init__(
        self,
        ledger: Ledger,
        store: ContentStore,
        small_blobs: SmallBlobs,
        open_blobs: OpenBlobs,
        shared: bool,
        namespace: str,
        lease: str,
    ) -> None:
        """Show of ``store`` what belongs to ``namespace``; ``shared`` blobs need not be sent a second time."""
        self._ledger = ledger
        self._store = store
        self._small_blobs = small_blobs
        self._open_blobs = open_blobs
        self._shared = shared
        self._namespace = namespace
        self._lease = RequestLease(ledger, namespace, lease)
        self._ingests = IngestRows(ledger, namespace, self._lease)

    @override
    @property
    def namespace(self) -> str:
        return self._namespace

    @override
    @quick
    def info(self, digest: str) -> Info:
        check_digest(digest)
        with self._ledger.read() as db:
            return BLOBS.existing(db, self._namespace, digest)

    @override
    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        check_digest(info.digest)

        def write(db: sqlite3.Connection) -> Info:
            current = BLOBS.existing(db, self._namespace, info.digest)
            labels = updated_labels(current.labels, info.labels, fieldpaths, f"content {info.digest}")
            changed = replace(current, labels=labels, updated_at=now())
            BLOBS.write(db, changed, self._namespace)
            self._ledger.touch(nodes.content(self._namespace, info.digest))
            return changed

        return self._ledger.change(write)

    @override
    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        """Blobs come in the order of their digests."""
        accepts = BLOB_FIELDS.test(filters)
        with self._ledger.read() as db:
            found = BLOBS.rows(db, self._namespace)
        return (info for info in map(BLOBS.decode, found) if accepts(info))

    @quick
    def info_encoded(self, digest: str) -> bytes:
        """Return what `info` does as bytes, see `windlass.contracts.encoded`."""
        check_digest(digest)
        return ENCODED.of(BLOBS.row(self._ledger.row, self._namespace, digest))

    def walk_encoded(self, filters: Sequence[str] = ()) -> Iterator[bytes]:
        """Return what `walk` does as bytes."""
        accepts = BLOB_FIELDS.test(filters) if filters else None
        with self._ledger.read() as db:
            rows = BLOBS.rows(db, self._namespace)
        return ENCODED.matching(rows, accepts)

    @override
    def delete(self, digest: str) -> None:
        check_digest(digest)

        def remove(db: sqlite3.Connection) -> None:
            BLOBS.require(db, self._namespace, digest)
            BLOBS.delete(db, self._namespace, digest)
            trash.discard_blob(db, digest)
            self._lease.let_go(db, "content", digest)

        self._ledger.change(remove, deletion=True)
        self._ledger.publish(self._namespace, "/content/delete", ContentDelete(digest=digest))

    @override
    def reader(self, desc: Descriptor) -> Reader:
        self.info(desc.digest)
        reader = self._store.reader(desc)
        try:
            if not self._small_blobs.read(desc.digest, reader):
                self._open_blobs.keep(desc.digest, lambda: self._store.reader(desc))
        except BaseException:
            reader.close()
            raise
        return reader

    @override
    @quick
    def remembered(self, digest: str, offset: int = 0, length: int = 0) -> tuple[int, bytes] | None:
        check_digest(digest)
        with self._ledger.read() as db:
            BLOBS.require(db, self._namespace, digest)
        blob = self._small_blobs.get(digest)
        if blob is None:
            return self._open_blobs.read(digest, offset, length)
        return len(blob), blob[offset : offset + length if length > 0 else None]

    @override
    def writer(self, ref: str, size: int = 0, expected: str = "", media_type: str = "") -> Writer:
        """A blob that this namespace may share is complete at once."""
        _check_ref(ref)
        if expected:
            check_digest(expected)
            self._refuse_existing(expected)
        self._ledger.take_ref(self._namespace, ref)
        try:
            row = self._ledger.reserve(lambda db: self._open(db, ref, size, expected))
            inner = None if row.virtual else self._open_backend(row, size)
        except BaseException:
            self._ledger.drop_ref(self._namespace, ref)
            raise
        return IngestWriter(
            self._ledger, self._store, self._ingests, self._namespace, self._lease, row, inner, media_type
        )

    @override
    def status(self, ref: str) -> Status:
        with self._ledger.read() as db:
            row = self._ingests.existing(db, ref)
        return self._status(row)

    @override
    def statuses(self, filters: Sequence[str] = ()) -> list[Status]:
        accepts = INGEST_FIELDS.test(filters)
        with self._ledger.read() as db:
            found = [row for row in self._ingests.all(db) if accepts(row)]
        statuses = []
        for row in found:
            try:
                statuses.append(self._status(row))
            except NotFound:
                continue  # committed or aborted meanwhile
        return statuses

    @override
    def abort(self, ref: str) -> None:
        self._ledger.take_ref(self._namespace, ref)
        try:
            with self._ledger.read() as db:
                row = self._ingests.existing(db, ref)
            try:
                self._store.abort(row.backend)
            except NotFound:
                pass  # a virtual ingest has no bytes
            # Not a deletion, as in containerd: clients that have no lease abort what turned out to be there already,
            # and a collection now would take it, and all else that they are about to name.
            self._ledger.change(lambda db: self._ingests.close(db, row), durable=False, frees=True)
        finally:
            self._ledger.drop_ref(self._namespace, ref)

    def _refuse_existing(self, digest: str) -> None:
        """Raise AlreadyExists for a blob that is there; the lease holds it from now on, as in containerd."""
        with self._ledger.read() as db:
            there = BLOBS.has(db, self._namespace, digest)

        def add(db: sqlite3.Connection) -> bool:
            self._lease.require(db)
            if not BLOBS.has(db, self._namespace, digest):
                return False  # collected meanwhile
            self._lease.hold(db, "content", digest)
            return True

        if there and (not self._lease.id or self._ledger.change(add)):
            raise AlreadyExists(f"content {digest} already exists")

    def _open(self, db: sqlite3.Connection, ref: str, size: int, expected: str) -> IngestRow:
        self._lease.require(db)
        shared = self._shared_size(db, expected) if expected else None
        if shared is not None and size in (0, shared):
            return self._ingests.open(db, ref, expected, shared)
        return self._ingests.open(db, ref, "", 0)

    def _shared_size(self, db: sqlite3.Connection, digest: str) -> int | None:
        """Return the size of a blob that another namespace has and this one may share."""
        if self._shared:
            found = db.execute("SELECT size FROM content WHERE digest = ? LIMIT 1", (digest,)).fetchone()
            return None if found is None else int(found[0])
        others = db.execute(
            "SELECT c.size, n.labels FROM content c JOIN namespaces n ON n.name = c.namespace WHERE c.digest = ?",
            (digest,),
        )
        sizes = [size for size, labels in others if decode_map(labels).get(LABEL_SHAREABLE) == "true"]
        return int(sizes[0]) if sizes else None

    def _open_backend(self, row: IngestRow, size: int) -> Writer:
        try:
            return self._store.writer(row.backend, size)
        except Unavailable as error:
            raise Unavailable(f"ref {row.ref}: {error}") from error

    def _status(self, row: IngestRow) -> Status:
        if row.virtual:
            return Status(row.ref, row.size, row.size, row.digest, row.started_at, row.started_at)
        return replace(self._store.status(row.backend), ref=row.ref)


def _check_ref(ref: str) -> None:
    if not ref:
        raise InvalidArgument("ref must not be empty")
    if len(ref.encode()) > MAX_REF:
        raise InvalidArgument(f"ref {ref[:64]!r}… is longer than {MAX_REF} bytes")
