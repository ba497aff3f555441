"""The database together with what goes around each change to it.

A change is committed, counted for the scheduler, noted for a collection that is
under way, and only then published. Operations that need a store are two changes
with a call between them, during which nothing is locked: the first *reserves*
(its rows say what is under way), the last *settles*. A change that meets a
reservation waits up to `PATIENCE` seconds until that is settled.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from google.protobuf.message import Message

from windlass.contracts.events import Exchange
from windlass.contracts.values import Payload
from windlass.errors import Error, Unavailable
from windlass_metadata.columns import Value
from windlass_metadata.database import Database
from windlass_metadata.nodes import Node

logger = logging.getLogger(__name__)
R = TypeVar("R")

PATIENCE = 10.0
"""Seconds for which an operation waits for another one on the same object."""

Change = Callable[[sqlite3.Connection], R]


class Busy(Exception):
    """Raised inside a change that meets a reservation; names the object."""


class Ledger:
    """What the views of the metadata store share."""

    def __init__(self, database: Database, exchange: Exchange) -> None:
        """Write to ``database`` and publish to ``exchange``."""
        self.database = database
        self.touched: list[Node] | None = None
        """Nodes changed since a collection began; used inside changes only."""
        self._exchange = exchange
        self._watchers: list[Callable[[bool], None]] = []
        self._settled = threading.Condition()
        self._settlements = 0
        self._open: set[tuple[str, str]] = set()
        self.suspects: set[str] = set()
        """Snapshotters that may hold something no row knows, because a call failed midway."""
        self._guard = threading.Lock()

    def read(self) -> AbstractContextManager[sqlite3.Connection]:
        """Lend a connection on which everything is as of one moment."""
        return self.database.read()

    def row(self, query: str, values: Sequence[str]) -> Sequence[Value] | None:
        """Return the one row of a query, None if there is none."""
        return self.database.row(query, values)

    def change(self, change: Change[R], deletion: bool = False, durable: bool = True, frees: bool | None = None) -> R:
        """Commit a change; ``deletion`` says that something may now be garbage.

        ``frees`` says whether a full disk must not stop it, as none does a deletion.
        """
        result = self._patiently(change, durable, frees=deletion if frees is None else frees)
        for watcher in self._watchers:
            watcher(deletion)
        return result

    def reserve(self, change: Change[R], deletion: bool = False, durable: bool = False) -> R:
        """Commit the first half of a change; mostly it need not survive a power failure, as the second half will."""
        return self._patiently(change, durable, frees=deletion)

    def settle(self, change: Change[R], deletion: bool = False, durable: bool = True) -> R:
        """Commit the second half of a change, and wake the changes that wait for it."""
        try:
            return self.change(change, deletion, durable)
        finally:
            self.wake()

    def release(self, change: Change[R]) -> R:
        """Undo the first half of a change, and wake the changes that wait for it."""
        try:
            return self._patiently(change, durable=False, frees=True)
        finally:
            self.wake()

    def wake(self) -> None:
        """Have every change that waits for a reservation look again."""
        with self._settled:
            self._settlements += 1
            self._settled.notify_all()

    def on_mutation(self, callback: Callable[[bool], None]) -> None:
        """Call ``callback`` after each change, in the changer's thread; True if something may now be garbage."""
        self._watchers.append(callback)

    def touch(self, node: Node) -> None:
        """Note, inside a change, that a node is new, or refers to others than before, or is newly held."""
        if self.touched is not None:
            self.touched.append(node)

    def publish(self, namespace: str, topic: str, event: Message) -> None:
        """Publish what has been committed; a failure is logged and undoes nothing."""
        payload = Payload(event.DESCRIPTOR.full_name, event.SerializeToString())
        try:
            self._exchange.publish(namespace, topic, payload)
        except Error as error:
            logger.warning("event %s of namespace %s is lost: %s", topic, namespace, error)

    def take_ref(self, namespace: str, ref: str) -> None:
        """Note that an ingest has a writer. Raises Unavailable if it has one already."""
        with self._guard:
            if (namespace, ref) in self._open:
                raise Unavailable(f"ref {ref} is locked: another writer has it open")
            self._open.add((namespace, ref))

    def drop_ref(self, namespace: str, ref: str) -> None:
        """Note that an ingest has no writer any more."""
        with self._guard:
            self._open.discard((namespace, ref))

    def open_refs(self) -> set[tuple[str, str]]:
        """Return the ingests that have writers."""
        with self._guard:
            return set(self._open)

    def _patiently(self, change: Change[R], durable: bool, frees: bool) -> R:
        deadline = time.monotonic() + PATIENCE
        while True:
            seen = self._settlements
            try:
                return self.database.write(change, durable, frees)
            except Busy as busy:
                if not self._wait(seen, deadline):
                    raise Unavailable(f"{busy} is in use by another call; try again") from None

    def _wait(self, seen: int, deadline: float) -> bool:
        with self._settled:
            return self._settled.wait_for(lambda: self._settlements != seen, max(0.0, deadline - time.monotonic()))


def ensure_namespace(db: sqlite3.Connection, namespace: str) -> None:
    """Bring a namespace into being; every first write does."""
    db.execute("INSERT OR IGNORE INTO namespaces (name) VALUES (?)", (namespace,))


def next_number(db: sqlite3.Connection) -> int:
    """Return a number that no backend name has had."""
    (number,) = db.execute("UPDATE sequence SET value = value + 1 RETURNING value").fetchone()
    return int(number)
