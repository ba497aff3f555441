"""Removes from the stores behind us what no row needs any more.

Each function makes one pass over the trash. It claims the objects of a batch in
the database, so that no change rescues them, removes them from the store, and
forgets them in the database. After a crash the next pass does the batch again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

from windlass import faults
from windlass.contracts.content import ContentStore
from windlass.contracts.snapshots import Snapshotter
from windlass.errors import FailedPrecondition, NotFound, Unavailable, Unimplemented
from windlass_metadata import trash
from windlass_metadata.ledger import Ledger

BATCH = 64
BLOBS_AT_ONCE = 256
"""A change that needs one of a batch waits until all of them are gone; a blob takes microseconds, a snapshot more."""

Remove = Callable[[str], None]


def clean_content(
    ledger: Ledger, store: ContentStore, full: bool, release: Callable[[str], object] = lambda _: None
) -> int:
    """Remove blobs and ingests; ``full`` also looks for those without a row. Returns how many blobs went.

    ``release`` is called with a blob's digest before the blob is removed.
    """

    def remove(digest: str) -> None:
        release(digest)
        store.delete(digest)

    if full:
        _discard_unknown(ledger, trash.BLOB, "", (info.digest for info in store.walk()))
        _discard_unknown(ledger, trash.INGEST, "", (status.ref for status in store.statuses()))
        _forget_without_bytes(ledger, store)
    blobs, _ = _empty(ledger, trash.BLOB, "", remove)
    _empty(ledger, trash.INGEST, "", store.abort)
    return blobs


def clean_snapshots(ledger: Ledger, name: str, snapshotter: Snapshotter, full: bool) -> int:
    """Remove snapshots, leaves first; ``full`` also looks for those without a row. Returns how many went."""
    if full:
        _discard_unknown(ledger, trash.SNAPSHOT, name, (info.name for info in snapshotter.walk()))
    removed = 0
    while True:
        gone, left = _empty(ledger, trash.SNAPSHOT, name, snapshotter.remove)
        removed += gone
        if not (gone and left):  # those that are left have children, which may be gone in the next round
            break
    if removed or full:
        try:
            snapshotter.cleanup()
        except Unimplemented:
            pass
    return removed


def _discard_unknown(ledger: Ledger, kind: str, store: str, names: Iterable[str]) -> None:
    iterator = iter(names)
    while chunk := list(islice(iterator, BATCH)):
        ledger.release(partial(trash.discard_unknown, kind=kind, store=store, names=chunk))


def _forget_without_bytes(ledger: Ledger, store: ContentStore) -> None:
    """Forget ingests whose bytes became a blob in a commit that a crash cut short; the blob has been discarded."""
    with ledger.read() as db:
        known = db.execute("SELECT namespace, ref, backend FROM ingests WHERE NOT virtual").fetchall()
    there = {status.ref for status in store.statuses()} if known else set()
    lost = [(namespace, ref, backend) for namespace, ref, backend in known if backend not in there]

    def forget(db: sqlite3.Connection) -> None:
        # A writer notes its ref before it opens the ingest, so an ingest without such a note has no writer.
        mine = ledger.open_refs()
        gone = [(backend,) for namespace, ref, backend in lost if (namespace, ref) not in mine]
        db.executemany("DELETE FROM ingests WHERE backend = ?", gone)

    if lost:
        ledger.release(forget)


def _empty(ledger: Ledger, kind: str, store: str, remove: Remove) -> tuple[int, int]:
    """Remove what is in the trash now; returns how many objects went, and how many could not go yet."""
    gone = left = 0
    for batch in _batches(ledger, kind, store):
        done = _Batch(batch)
        try:
            faults.point("gc.claimed")
            done.remove_each(remove)
        finally:
            faults.point("gc.conclude")
            ledger.release(partial(trash.conclude, gone=done.gone, there=done.left()))
        gone += len(done.gone)
        left += len(done.left())
    return gone, left


def _batches(ledger: Ledger, kind: str, store: str) -> Iterator[list[tuple[int, str]]]:
    after, limit = 0, BLOBS_AT_ONCE if kind == trash.BLOB else BATCH
    while True:
        claim = partial(trash.claim, kind=kind, store=store, after=after, limit=limit)
        with ledger.read() as db:
            if not trash.has_any(db, kind, store, after):
                return
        # durable, with all that came before: rows that a power failure brings back must find their files
        batch = ledger.reserve(claim, deletion=True, durable=True)
        if not batch:
            return
        yield batch
        after = batch[-1][0]


class _Batch:
    """Objects that were claimed, and which of them are gone."""

    def __init__(self, claimed: list[tuple[int, str]]) -> None:
        self._claimed = claimed
        self.gone: list[int] = []

    def remove_each(self, remove: Remove) -> None:
        for id, name in self._claimed:
            try:
                remove(name)
            except NotFound:
                pass
            except (FailedPrecondition, Unavailable):
                continue  # it has a child, or a writer has it open
            self.gone.append(id)
            faults.point("gc.removed")

    def left(self) -> list[int]:
        gone = set(self.gone)
        return [id for id, _ in self._claimed if id not in gone]
