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
from windlass.filters import expressions as filter_expressions
from windlass.filters.fieldpaths import updated_labels
from windlass.plugin import quick
from windlass_api.containerd.events.content_pb2 import ContentDelete
from windlass_metadata import nodes, trash
from windlass_metadata.ingest_rows import IngestRow, IngestRows
from windlass_metadata.ledger import Ledger, hold, let_go, require_lease
from windlass_metadata.open_blobs import OpenBlobs
from windlass_metadata.rows import decode_map, encode_map, now
from windlass_metadata.small_blobs import SmallBlobs
from windlass_metadata.writer import IngestWriter

MAX_REF = 64 << 10
"""Bytes of a ref, which is hashed for its directory and kept in a row."""


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
        self._lease = lease
        self._ingests = IngestRows(ledger, namespace, lease)

    @property
    def namespace(self) -> str:
        """See the contract."""
        return self._namespace

    @quick
    def info(self, digest: str) -> Info:
        """See the contract."""
        check_digest(digest)
        with self._ledger.read() as db:
            return self._existing(db, digest)

    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        """See the contract."""
        check_digest(info.digest)

        def write(db: sqlite3.Connection) -> Info:
            current = self._existing(db, info.digest)
            labels = updated_labels(current.labels, info.labels, fieldpaths, f"content {info.digest}")
            changed = replace(current, labels=labels, updated_at=now())
            db.execute(
                "UPDATE content SET labels = ?, updated_at = ? WHERE namespace = ? AND digest = ?",
                (encode_map(labels), changed.updated_at, self._namespace, info.digest),
            )
            self._ledger.touch(nodes.content(self._namespace, info.digest))
            return changed

        return self._ledger.change(write)

    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        """See the contract; blobs come in the order of their digests."""
        accepts = filter_expressions.parse(filters)
        with self._ledger.read() as db:
            found = db.execute(
                "SELECT digest, size, created_at, updated_at, labels FROM content WHERE namespace = ? ORDER BY digest",
                (self._namespace,),
            ).fetchall()
        infos = (_info(*row) for row in found)
        if accepts is filter_expressions.match_all:
            return infos
        return (info for info in infos if accepts(adaptor(info)))

    def delete(self, digest: str) -> None:
        """See the contract."""
        check_digest(digest)

        def remove(db: sqlite3.Connection) -> None:
            self._existing(db, digest)
            db.execute("DELETE FROM content WHERE namespace = ? AND digest = ?", (self._namespace, digest))
            trash.discard_blob(db, digest)
            let_go(db, self._namespace, self._lease, "content", digest)

        self._ledger.change(remove, deletion=True)
        self._ledger.publish(self._namespace, "/content/delete", ContentDelete(digest=digest))

    def reader(self, desc: Descriptor) -> Reader:
        """See the contract."""
        self.info(desc.digest)
        reader = self._store.reader(desc)
        try:
            if not self._small_blobs.read(desc.digest, reader):
                self._open_blobs.keep(desc.digest, lambda: self._store.reader(desc))
        except BaseException:
            reader.close()
            raise
        return reader

    @quick
    def remembered(self, digest: str, offset: int = 0, length: int = 0) -> tuple[int, bytes] | None:
        """See the contract."""
        check_digest(digest)
        with self._ledger.read() as db:
            known = db.execute(
                "SELECT 1 FROM content WHERE namespace = ? AND digest = ?", (self._namespace, digest)
            ).fetchone()
        if known is None:
            self.info(digest)  # which says so
        blob = self._small_blobs.get(digest)
        if blob is None:
            return self._open_blobs.read(digest, offset, length)
        return len(blob), blob[offset : offset + length if length > 0 else None]

    def writer(self, ref: str, size: int = 0, expected: str = "", media_type: str = "") -> Writer:
        """See the contract. A blob that this namespace may share is complete at once."""
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

    def status(self, ref: str) -> Status:
        """See the contract."""
        with self._ledger.read() as db:
            row = self._ingests.existing(db, ref)
        return self._status(row)

    def statuses(self, filters: Sequence[str] = ()) -> list[Status]:
        """See the contract."""
        accepts = filter_expressions.parse(filters)
        with self._ledger.read() as db:
            found = [row for row in self._ingests.all(db) if accepts(_ref_adaptor(row.ref))]
        statuses = []
        for row in found:
            try:
                statuses.append(self._status(row))
            except NotFound:
                continue  # committed or aborted meanwhile
        return statuses

    def abort(self, ref: str) -> None:
        """See the contract."""
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

    def _existing(self, db: sqlite3.Connection, digest: str) -> Info:
        row = db.execute(
            "SELECT digest, size, created_at, updated_at, labels FROM content WHERE namespace = ? AND digest = ?",
            (self._namespace, digest),
        ).fetchone()
        if row is None:
            raise NotFound(f"content {digest} does not exist")
        return _info(*row)

    def _refuse_existing(self, digest: str) -> None:
        """Raise AlreadyExists for a blob that is there; the lease holds it from now on, as in containerd."""
        with self._ledger.read() as db:
            there = self._is_there(db, digest)

        def add(db: sqlite3.Connection) -> bool:
            require_lease(db, self._namespace, self._lease)
            if not self._is_there(db, digest):
                return False  # collected meanwhile
            hold(self._ledger, db, self._namespace, self._lease, "content", digest)
            return True

        if there and (not self._lease or self._ledger.change(add)):
            raise AlreadyExists(f"content {digest} already exists")

    def _is_there(self, db: sqlite3.Connection, digest: str) -> bool:
        query = "SELECT 1 FROM content WHERE namespace = ? AND digest = ?"
        return db.execute(query, (self._namespace, digest)).fetchone() is not None

    def _open(self, db: sqlite3.Connection, ref: str, size: int, expected: str) -> IngestRow:
        require_lease(db, self._namespace, self._lease)
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


def _info(digest: str, size: int, created_at: int, updated_at: int, labels: str) -> Info:
    return Info(digest, size, created_at, updated_at, decode_map(labels))


def _check_ref(ref: str) -> None:
    if not ref:
        raise InvalidArgument("ref must not be empty")
    if len(ref.encode()) > MAX_REF:
        raise InvalidArgument(f"ref {ref[:64]!r}… is longer than {MAX_REF} bytes")


def adaptor(info: Info) -> filter_expressions.Adaptor:
    """Show a blob to a filter; its size can be asked for and never matches, as in containerd."""

    def field(path: Sequence[str]) -> tuple[str, bool]:
        match path:
            case ["digest"]:
                return filter_expressions.value_of(info.digest)
            case ["labels", *_]:
                return filter_expressions.label_of(info.labels, path)
        return filter_expressions.ABSENT

    return field


def _ref_adaptor(ref: str) -> filter_expressions.Adaptor:
    return lambda path: filter_expressions.value_of(ref) if list(path) == ["ref"] else filter_expressions.ABSENT
