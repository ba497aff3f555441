"""Compares the rows with what the stores behind us have, for `windlass fsck`.

Rows whose object is lost are forgotten on request, so that a pull brings it again;
objects that no row knows are garbage, and go as garbage goes.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

from windlass.contracts.checks import Problem
from windlass.contracts.content import CHUNK, ContentStore
from windlass.contracts.snapshots import Info, Kind, Snapshotter
from windlass.contracts.values import Descriptor
from windlass.errors import Error, NotFound
from windlass_metadata import encoding, trash
from windlass_metadata.clean import clean_content, clean_snapshots
from windlass_metadata.columns import decode_map
from windlass_metadata.ledger import Ledger
from windlass_metadata.references import references
from windlass_metadata.snapshot_rows import RowState

MOST_NAMED = 3
"""Users of a lost object that its line names."""


class Check:
    """One check of everything."""

    def __init__(self, ledger: Ledger, content: ContentStore, snapshotters: Mapping[str, Snapshotter]) -> None:
        self._ledger = ledger
        self._content = content
        self._snapshotters = snapshotters

    def run(self, repair: bool, deep: bool) -> Iterator[Problem]:
        """Yield every problem, what others follow from first."""
        yield from self._database()
        yield from self._blobs(repair, deep)
        yield from self._ingests(repair)
        for name, snapshotter in sorted(self._snapshotters.items()):
            own = getattr(snapshotter, "check", None)
            if own is not None:
                yield from own(repair, deep)
            yield from self._snapshots(name, snapshotter, repair)
        yield from self._names()
        yield from self._encoded(repair)

    def _database(self) -> Iterator[Problem]:
        with self._ledger.read() as db:
            for (line,) in db.execute("PRAGMA integrity_check(20)"):
                if line != "ok":
                    yield Problem("metadata database", f"is damaged: {line}", "restore it from a copy")

    # Blobs and ingests

    def _blobs(self, repair: bool, deep: bool) -> Iterator[Problem]:
        files = {info.digest: info.size for info in self._content.walk()}
        with self._ledger.read() as db:
            known: dict[str, int] = dict(db.execute("SELECT digest, max(size) FROM content GROUP BY digest"))
            unknown = [each for each in files if each not in known and not _awaited(db, trash.BLOB, "", each)]
        for digest, size in sorted(known.items()):
            state = self._state_of(digest, size, files.get(digest), deep)
            if state:
                yield self._lost(digest, state, repair)
        yield from self._unknown("blob", unknown, repair, lambda: clean_content(self._ledger, self._content, full=True))

    def _state_of(self, digest: str, size: int, found: int | None, deep: bool) -> str:
        """Return what is wrong with a blob, empty if nothing is."""
        if found is None:
            return "is missing"
        if found != size:
            return f"has {found} bytes, not {size}"
        return "has other bytes than it was stored with" if deep and self._digest(digest) != digest else ""

    def _digest(self, digest: str) -> str:
        algorithm = digest.partition(":")[0]
        sum = hashlib.new(algorithm)
        with closing(self._content.reader(Descriptor("", digest, 0))) as reader:
            offset = 0
            while data := reader.read_at(offset, CHUNK):
                sum.update(data)
                offset += len(data)
        return f"{algorithm}:{sum.hexdigest()}"

    def _lost(self, digest: str, state: str, repair: bool) -> Problem:
        with self._ledger.read() as db:
            images = _images_of(db, digest)
        more = "" if len(images) <= MOST_NAMED else f" and {len(images) - MOST_NAMED} more"
        again = f"pull {', '.join(images[:MOST_NAMED])}{more} again" if images else "no image needs it"
        if not repair:
            return Problem(f"blob {digest}", state, f"run with --repair to have it forgotten, then {again}")
        self._forget("DELETE FROM content WHERE digest = ?", (digest,))
        try:
            self._content.delete(digest)
        except NotFound:
            pass
        return Problem(f"blob {digest}", state, f"it was forgotten; {again}", repaired=True)

    def _ingests(self, repair: bool) -> Iterator[Problem]:
        files = {status.ref for status in self._content.statuses()}
        with self._ledger.read() as db:
            known = db.execute("SELECT namespace, ref, backend FROM ingests WHERE NOT virtual").fetchall()
            backends = {backend for _, _, backend in known}
            unknown = [each for each in files if each not in backends and not _awaited(db, trash.INGEST, "", each)]
        for namespace, ref, backend in known:
            if backend not in files:
                if repair:
                    self._forget("DELETE FROM ingests WHERE backend = ?", (backend,))
                remedy = "it was forgotten" if repair else "it will start from its beginning"
                yield Problem(f"ingest {ref} of namespace {namespace}", "has lost its bytes", remedy, repair)
        yield from self._unknown(
            "ingest", unknown, repair, lambda: clean_content(self._ledger, self._content, full=True)
        )

    # Snapshots

    def _snapshots(self, name: str, snapshotter: Snapshotter, repair: bool) -> Iterator[Problem]:
        try:
            found = {info.name: info for info in snapshotter.walk()}
        except (Error, OSError) as error:
            yield Problem(f"snapshotter {name}", f"cannot be checked: {error}", "see whether it runs")
            return
        with self._ledger.read() as db:
            known = _snapshot_rows(db, name)
            backends = {backend for _, _, backend, *_ in known}
            unknown = [each for each in found if each not in backends and not _awaited(db, trash.SNAPSHOT, name, each)]
        named = {(namespace, key): backend for namespace, key, backend, *_ in known}
        # Children first, so that a lost chain goes as a whole.
        for namespace, key, backend, kind, parent in reversed(known):
            what = f"snapshot {key} of {name}, namespace {namespace},"
            info = found.get(backend)
            if info is None:
                yield self._lost_snapshot(what, (namespace, name, key), repair)
            elif difference := _difference(info, kind, named.get((namespace, parent), parent)):
                yield Problem(what, difference, "remove what was made on it, then itself")
        yield from self._unknown(
            f"snapshot of {name}", unknown, repair, lambda: clean_snapshots(self._ledger, name, snapshotter, full=True)
        )

    def _lost_snapshot(self, what: str, row: tuple[str, str, str], repair: bool) -> Problem:
        with self._ledger.read() as db:
            users = [
                f"container {id}"
                for (id,) in db.execute(
                    "SELECT id FROM containers WHERE namespace = ? AND snapshotter = ? AND snapshot_key = ?", row
                )
            ] + [
                f"snapshot {key}"
                for (key,) in db.execute(
                    "SELECT key FROM snapshots WHERE namespace = ? AND snapshotter = ? AND parent = ?", row
                )
            ]
        if users:
            return Problem(what, "is missing", f"remove {', '.join(users[:MOST_NAMED])}, which cannot be used any more")
        if not repair:
            return Problem(what, "is missing", "run with --repair to have it forgotten; an image's is unpacked again")
        self._forget("DELETE FROM snapshots WHERE namespace = ? AND snapshotter = ? AND key = ?", row)
        return Problem(what, "is missing", "it was forgotten; an image's is unpacked again when it is needed", True)

    # Names

    def _names(self) -> Iterator[Problem]:
        with self._ledger.read() as db:
            for namespace, name, digest in db.execute(
                "SELECT namespace, name, digest FROM images AS i WHERE NOT EXISTS"
                " (SELECT 1 FROM content AS c WHERE c.namespace = i.namespace AND c.digest = i.digest)"
            ):
                yield Problem(
                    f"image {name} of namespace {namespace}", f"has no {digest}", "pull it again, or remove it"
                )
            for namespace, id, snapshotter, key in db.execute(
                "SELECT namespace, id, snapshotter, snapshot_key FROM containers AS c WHERE snapshot_key != ''"
                " AND snapshotter != '' AND NOT EXISTS (SELECT 1 FROM snapshots AS s"
                " WHERE s.namespace = c.namespace AND s.snapshotter = c.snapshotter AND s.key = c.snapshot_key)"
            ):
                state = f"has no snapshot {key} of {snapshotter}"
                yield Problem(f"container {id} of namespace {namespace}", state, "remove it")

    def _encoded(self, repair: bool) -> Iterator[Problem]:
        with self._ledger.read() as db:
            found = list(encoding.wrong(db))
        if found and repair:
            self._ledger.database.write(encoding.encode)
        for table, namespace, key in found:
            what = f"record {key} of {table} of namespace {namespace}"
            remedy = "it was encoded again" if repair else "run with --repair to have it encoded again"
            yield Problem(what, "is listed otherwise than it is kept", remedy, repair)

    def _unknown(self, kind: str, names: list[str], repair: bool, clean: Callable[[], object]) -> Iterator[Problem]:
        if names and repair:
            clean()
        for name in sorted(names):
            remedy = "it was removed" if repair else "garbage collection removes it"
            yield Problem(f"{kind} {name}", "belongs to nothing", remedy, repair)

    def _forget(self, statement: str, values: tuple[str, ...]) -> None:
        self._ledger.database.write(lambda db: db.execute(statement, values).rowcount)


def _awaited(db: sqlite3.Connection, kind: str, store: str, name: str) -> bool:
    """Return whether something without a row is known all the same: it is garbage, or about to be committed."""
    found = db.execute(
        "SELECT EXISTS (SELECT 1 FROM trash WHERE kind = ?1 AND store = ?2 AND name = ?3)"
        " OR EXISTS (SELECT 1 FROM ingests WHERE digest = ?3 AND digest != '')",
        (kind, store, name),
    ).fetchone()
    return bool(found[0])


def _images_of(db: sqlite3.Connection, digest: str) -> list[str]:
    """Return the images that need a blob, by the labels of what refers to it."""
    above: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for namespace, parent, labels in db.execute("SELECT namespace, digest, labels FROM content"):
        for node in references(namespace, decode_map(labels)):
            above[namespace, node[2]].add((namespace, parent))
    reached = {(namespace, digest) for (namespace,) in db.execute("SELECT name FROM namespaces")}
    waiting = list(reached)
    while waiting:
        for each in above[waiting.pop()] - reached:
            reached.add(each)
            waiting.append(each)
    images = db.execute("SELECT namespace, name, digest FROM images ORDER BY name").fetchall()
    return [name for namespace, name, target in images if (namespace, target) in reached]


def _snapshot_rows(db: sqlite3.Connection, snapshotter: str) -> list[tuple[str, str, str, int, str]]:
    """Return namespace, key, backend, kind and parent of those that are there, parents before children."""
    found = db.execute(
        "SELECT namespace, key, backend, kind, parent FROM snapshots WHERE snapshotter = ? AND state = ?",
        (snapshotter, RowState.READY),
    ).fetchall()
    by_name = {(row[0], row[1]): row for row in found}

    def depth(row: tuple[str, str, str, int, str]) -> int:
        deep, seen = 0, set()
        while (parent := by_name.get((row[0], row[4]))) is not None and parent[1] not in seen:
            seen.add(parent[1])
            row, deep = parent, deep + 1
        return deep

    return sorted(found, key=depth)


def _difference(info: Info, kind: int, parent: str) -> str:
    """Return in what a snapshot is not as its row says, empty if in nothing."""
    if info.kind != kind:
        return f"is {info.kind.name.lower()} in the snapshotter, {Kind(kind).name.lower()} here"
    return "" if info.parent == parent else f"has the parent {info.parent or 'none'} in the snapshotter, {parent} here"
