"""The metadata store: hands out the views, recovers after a crash, and collects garbage."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from windlass.contracts.checks import Problem
from windlass.contracts.containers import ContainerStore
from windlass.contracts.content import ContentStore, RememberedContent
from windlass.contracts.events import Exchange
from windlass.contracts.images import ImageStore
from windlass.contracts.leases import LeaseStore
from windlass.contracts.metadata import Collected, Collectibles, Metadata
from windlass.contracts.namespaces import NamespaceStore
from windlass.contracts.sandboxes import SandboxStore
from windlass.contracts.snapshots import Snapshotter
from windlass.contracts.values import check_identifier
from windlass.errors import Error, FailedPrecondition, InvalidArgument, Unavailable
from windlass.typing import override
from windlass_metadata import encoding, trash
from windlass_metadata.abandoned import Abandoned
from windlass_metadata.check import Check
from windlass_metadata.clean import clean_content, clean_snapshots
from windlass_metadata.cleaner import Cleaner
from windlass_metadata.collect import collect
from windlass_metadata.containers import Containers
from windlass_metadata.content import Content
from windlass_metadata.database import Database
from windlass_metadata.images import Images
from windlass_metadata.leases import Leases
from windlass_metadata.ledger import Ledger
from windlass_metadata.namespaces import Namespaces
from windlass_metadata.nodes import Node
from windlass_metadata.open_blobs import OpenBlobs
from windlass_metadata.outside import Outside
from windlass_metadata.sandboxes import Sandboxes
from windlass_metadata.small_blobs import SmallBlobs
from windlass_metadata.snapshots import Snapshots

COLLECT_TIMEOUT = 60.0
"""Seconds that a collection waits for the one before it."""

CLEAN_TIMEOUT = 60.0
"""Seconds that a collection waits for the stores behind us to be cleaned."""


class MetadataStore(Metadata):
    """Everything that is kept, in the views of namespaces."""

    def __init__(
        self,
        database: Database,
        content: ContentStore,
        snapshotters: Mapping[str, Snapshotter],
        exchange: Exchange,
        shared: bool = True,
        clean_timeout: float = CLEAN_TIMEOUT,
    ) -> None:
        """Keep in ``database`` what is known of the stores behind us, and own it from now on."""
        self._ledger = Ledger(database, exchange)
        self._content = content
        self._small_blobs = SmallBlobs()
        self._open_blobs = OpenBlobs()
        self._snapshotters = dict(snapshotters)
        self._shared = shared
        self._clean_timeout = clean_timeout
        self._collecting = threading.Lock()
        self._outside = Outside()
        self._ledger.release(recover)
        self._abandoned = {name: Abandoned(self._ledger, name, one) for name, one in self._snapshotters.items()}
        self._content_cleaner = Cleaner(
            "content store",
            lambda: self._has_trash(trash.BLOB, "") or self._has_trash(trash.INGEST, ""),
            lambda full: clean_content(self._ledger, content, full, self._open_blobs.forget),
        )
        self._cleaners = {name: self._cleaner(name, one) for name, one in self._snapshotters.items()}

    @override
    def namespaces(self) -> NamespaceStore:
        return Namespaces(self._ledger)

    @override
    def containers(self, namespace: str) -> ContainerStore:
        return Containers(self._ledger, checked(namespace))

    @override
    def images(self, namespace: str, lease: str = "") -> ImageStore:
        return Images(self._ledger, checked(namespace), lease)

    @override
    def leases(self, namespace: str) -> LeaseStore:
        return Leases(self._ledger, checked(namespace))

    @override
    def sandboxes(self, namespace: str) -> SandboxStore:
        return Sandboxes(self._ledger, checked(namespace))

    @override
    def content(self, namespace: str, lease: str = "") -> RememberedContent:
        return Content(
            self._ledger,
            self._content,
            self._small_blobs,
            self._open_blobs,
            self._shared,
            checked(namespace),
            lease,
        )

    @override
    def snapshotter(self, name: str, namespace: str, lease: str = "") -> Snapshotter:
        checked(namespace)
        if not name:
            raise InvalidArgument("snapshotter must not be empty")
        if name not in self._snapshotters:
            known = ", ".join(self.snapshotters()) or "none"
            raise InvalidArgument(f"snapshotter {name[:128]} is not loaded; there are: {known}")
        return Snapshots(self._ledger, self._snapshotters[name], self._abandoned[name], name, namespace, lease)

    @override
    def snapshotters(self) -> Sequence[str]:
        return sorted(self._snapshotters)

    @override
    def on_mutation(self, callback: Callable[[bool], None]) -> None:
        self._ledger.on_mutation(callback)

    @override
    def collect_from(self, kind: str, store: Collectibles) -> None:
        self._outside.add(kind, store)

    @override
    def collect(self) -> Collected:
        if not self._collecting.acquire(timeout=COLLECT_TIMEOUT):
            raise Unavailable("another garbage collection is under way; try again")
        try:
            started = time.monotonic()
            removed, outside = collect(self._ledger, outside=self._outside.found)
            # As in containerd, collections are spaced by this alone: removing files keeps no client waiting.
            seconds = time.monotonic() - started
        finally:
            self._collecting.release()
        blobs, snapshots = self._removed()
        failures = self._clean(outside, time.monotonic() + self._clean_timeout)
        blobs_after, snapshots_after = self._removed()
        return Collected(
            removed=removed,
            blobs=blobs_after - blobs,
            snapshots=snapshots_after - snapshots,
            seconds=seconds,
            failures=tuple(failures),
        )

    @override
    def check(self, repair: bool = False, deep: bool = False) -> list[Problem]:
        for abandoned in self._abandoned.values():
            # What a daemon that died left half done is not damage.
            with suppress(Error, OSError):
                abandoned.resolve()
        return list(Check(self._ledger, self._content, self._snapshotters).run(repair, deep))

    def close(self) -> None:
        """Close the database; what is under way fails."""
        self._open_blobs.close()
        self._ledger.database.close()

    def _removed(self) -> tuple[int, int]:
        return self._content_cleaner.removed, sum(cleaner.removed for cleaner in self._cleaners.values())

    def _clean(self, outside: Sequence[Node], deadline: float) -> list[str]:
        """Clean all stores at once, rid the others of the garbage ``outside``, and return what went wrong."""
        while self._ledger.suspects:
            self._cleaners[self._ledger.suspects.pop()].suspect()
        cleaners = [self._content_cleaner, *self._cleaners.values(), *self._outside.begin(outside)]
        runs = [(cleaner, cleaner.start()) for cleaner in cleaners]
        failures = [run if isinstance(run, str) else cleaner.finish(run, deadline) for cleaner, run in runs]
        return [failure for failure in failures if failure]

    def _cleaner(self, name: str, snapshotter: Snapshotter) -> Cleaner:
        return Cleaner(
            f"snapshotter {name}",
            lambda: self._has_trash(trash.SNAPSHOT, name),
            lambda full: self._clean_snapshotter(name, snapshotter, full),
        )

    def _has_trash(self, kind: str, store: str) -> bool:
        with self._ledger.read() as db:
            return trash.has_any(db, kind, store)

    def _clean_snapshotter(self, name: str, snapshotter: Snapshotter, full: bool) -> int:
        self._abandoned[name].resolve()
        return clean_snapshots(self._ledger, name, snapshotter, full)


def recover(db: sqlite3.Connection) -> None:
    """Undo what a daemon that died has left half done, but for snapshots: their snapshotters must be asked.

    The blob of a commit under way may or may not be there; it is discarded, and the
    ingest continues as its bytes are. Records of an older Windlass are encoded.
    """
    encoding.complete(db)
    db.execute("UPDATE trash SET removing = 0")
    half_done = db.execute("SELECT DISTINCT digest FROM ingests WHERE digest != '' AND NOT virtual").fetchall()
    db.execute("UPDATE ingests SET digest = '' WHERE NOT virtual")
    for (digest,) in half_done:
        trash.discard_blob(db, digest)


def checked(namespace: str) -> str:
    """Return a namespace that a view can be of. Raises FailedPrecondition without one, InvalidArgument."""
    if not namespace:
        raise FailedPrecondition("namespace is required")
    check_identifier("namespace", namespace)
    return namespace
