"""The SQLite database: one writer at a time, with group commit, and readers that never wait for it.

A thread with a change writes it itself when no other thread is writing. Changes
that arrive during a transaction share the next one: the thread of the first of
them writes them all, each in a savepoint of its own, so that one that fails
leaves the others whole. Readers see the last committed state on connections of
their own.

Invariants, under ``_guard``:

- ``_writing`` is true exactly while one thread uses ``_writer``, or has been
  given its turn to; no other thread touches that connection.
- While ``_writing`` is false, ``_requests`` is empty.
- A request leaves ``_requests`` once: into a batch, or withdrawn by its own
  thread when it has waited too long.
- ``turn`` of a request is released after ``done``, or, for the next writer,
  while the request is still the first of ``_requests``.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Generic, TypeVar

from windlass.errors import DeadlineExceeded, Internal, Unavailable
from windlass.records import dataclass
from windlass_metadata.columns import Value
from windlass_metadata.lock import FileLock
from windlass_metadata.schema import migrate
from windlass_metadata.threads import Outcome, attempt
from windlass_storage import databases
from windlass_storage.databases import primary_code, reuse_log
from windlass_storage.disks import disk_errors, private_directory
from windlass_storage.reserve import Reserve

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

COMMIT_TIMEOUT = 60.0
MAX_BATCH = 256
IDLE_READERS = 16
RESERVE = 1 << 20
"""Bytes kept back for deletions: the log and its index, and some pages for each."""
WHAT = "metadata database"
DISK_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


@dataclass(slots=True, eq=False)
class _Request(Generic[R_co]):
    """A change that waits for its transaction.

    ``durable`` if its caller waits for the disk too, ``frees`` if a full disk must not stop it.
    """

    change: Callable[[sqlite3.Connection], R_co]
    durable: bool
    frees: bool
    outcome: Outcome[R_co] = field(default_factory=Outcome)
    done: bool = False
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released once: when the request is done, or when its thread is to write."""


class Database:
    """A SQLite database in WAL mode that belongs to this process alone."""

    def __init__(self, path: Path, wait: float = 1.0, sync: bool = True) -> None:
        """Open the database, making or migrating it as needed.

        Raises FailedPrecondition while another process has it, after ``wait`` seconds, and
        DataLoss for a file that is not a database. Without ``sync`` a power failure
        may lose the last changes; the end of this process does not.
        """
        self.path = path
        with disk_errors(f"open metadata database {path}", path.parent):
            private_directory(path.parent)
            self._lock = FileLock(path.with_name(path.name + ".lock"), wait)
        self._sync = sync
        self._reserve = Reserve(path.with_name(path.name + "-reserve"), RESERVE)
        try:
            self._writer = databases.opened(path, self._reserve, self._open)
        except BaseException:
            self._lock.release()
            raise
        self._durable = True
        self._idle: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._closed = False
        self._requests: deque[_Request[object]] = deque()
        self._writing = False
        self._quiet = threading.Condition(self._guard)

    def write(self, change: Callable[[sqlite3.Connection], R], durable: bool = True, frees: bool = False) -> R:
        """Run ``change`` and return its result once it is committed.

        It may be run in the thread of another caller, and must not wait for anything.
        What ``change`` raises is raised here, and nothing of it is kept. Unless
        ``durable``, the change outlives this process but perhaps not a power failure.
        One that ``frees`` may have space that is kept back when the disk is full.
        """
        request = _Request(change, durable, frees)
        with self._guard:
            if self._closed:
                raise Unavailable(f"metadata database {self.path} is closed")
            self._requests.append(request)
            is_writer, self._writing = not self._writing, True
        if not is_writer:
            self._wait(request)
        if not request.done:
            self._write_batch()
        return request.outcome.get()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection on which everything is as of one moment."""
        db = self._borrow()
        try:
            db.execute("BEGIN")
            yield db
        except sqlite3.Error as error:
            raise databases.translated(error, self.path, WHAT) from error
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
            self._give_back(db)

    def row(self, query: str, values: Sequence[str]) -> Sequence[Value] | None:
        """Return the one row of a query, None if there is none; it needs no transaction, and so no call besides."""
        db = self._borrow()
        try:
            found: list[Sequence[Value]] = db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise databases.translated(error, self.path, WHAT) from error
        finally:
            self._give_back(db)
        return found[0] if found else None

    def close(self) -> None:
        """Finish the changes under way and close; closing twice is fine."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            self._quiet.wait_for(lambda: not self._writing, COMMIT_TIMEOUT)
            idle, self._idle = self._idle, []
        for db in idle:
            db.close()
        databases.close(self._writer, self.path, self._reserve)
        self._lock.release()

    def _open(self) -> sqlite3.Connection:
        with databases.sqlite_errors(self.path, WHAT):
            db = self._connect()
            try:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA journal_size_limit = 67108864")
                db.execute(f"PRAGMA synchronous = {'FULL' if self._sync else 'NORMAL'}")
                migrate(db)
            except BaseException:
                db.close()
                raise
        return db

    def _connect(self) -> sqlite3.Connection:
        return databases.connect(self.path, COMMIT_TIMEOUT, cached_statements=256)

    def _borrow(self) -> sqlite3.Connection:
        with self._guard:
            if self._closed:
                raise Unavailable(f"metadata database {self.path} is closed")
            if self._idle:
                return self._idle.pop()
        with databases.sqlite_errors(self.path, WHAT):
            db = self._connect()
            db.execute("PRAGMA query_only = ON")
        return db

    def _give_back(self, db: sqlite3.Connection) -> None:
        with self._guard:
            if not self._closed and len(self._idle) < IDLE_READERS:
                self._idle.append(db)
                return
        db.close()

    def _wait(self, request: _Request[object]) -> None:
        """Return when a request is done, or its thread is to write. Raises DeadlineExceeded, having withdrawn it."""
        if request.turn.acquire(timeout=COMMIT_TIMEOUT):
            return
        with self._guard:
            if request.turn.acquire(blocking=False):
                return
            if request in self._requests:
                self._requests.remove(request)
        raise DeadlineExceeded(f"metadata database {self.path}: a change was not committed within {COMMIT_TIMEOUT:g} s")

    def _write_batch(self) -> None:
        """Write what is waiting, the caller's own request included, and give the next thread its turn."""
        with self._guard:
            batch = [self._requests.popleft() for _ in range(min(MAX_BATCH, len(self._requests)))]
        ended = False
        try:
            self._commit(batch)
            ended = True
        finally:
            if not ended:
                for request in batch:
                    request.outcome = Outcome(error=Internal(f"metadata database {self.path}: a change was cut short"))
            with self._guard:
                self._writing = bool(self._requests)
                if self._writing:
                    self._requests[0].turn.release()
                else:
                    self._quiet.notify_all()
            for request in batch:
                request.done = True
                request.turn.release()

    def _commit(self, batch: list[_Request[object]]) -> None:
        db = self._writer
        try:
            self._set_durable(any(request.durable for request in batch))
            databases.fault_point("metadata.begin")
            db.execute("BEGIN IMMEDIATE")
            for request in batch:
                self._apply(request)
            databases.fault_point("metadata.commit")
            db.execute("COMMIT")
            databases.fault_point("metadata.committed")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            self._failed(batch, error)
            return
        # Before the callers go on: one that hears of a deletion may fill the disk at once.
        self._reserve.refill()

    def _failed(self, batch: list[_Request[object]], error: sqlite3.Error) -> None:
        """Fail a batch that was not committed; when there was no space, try again the changes that make space."""
        again = [request for request in batch if request.frees] if _is_full(error) else []
        if again and not self._reserve.spend():
            again = []
        if not again:
            self._reserve.refill()
        for request in batch:
            if request not in again:
                request.outcome = Outcome(error=databases.translated(error, self.path, WHAT))
        if again:
            reuse_log(self._writer)
            self._commit(again)

    def _apply(self, request: _Request[object]) -> None:
        """Run one request; raises sqlite3.Error when SQLite has given up the whole transaction."""
        db = self._writer
        db.execute("SAVEPOINT request")
        request.outcome = attempt(lambda: request.change(db))
        if request.outcome.error is not None:
            self._undo(request.outcome)
        db.execute("RELEASE request")

    def _undo(self, outcome: Outcome[object]) -> None:
        """Take back what a request did before it failed."""
        # Not in `_apply`: a variable of that frame would keep the error, whose traceback leads there, for ever.
        error = outcome.error
        # A full disk may end the transaction, savepoints and all (sqlite.org/lang_transaction.html).
        if isinstance(error, sqlite3.Error) and (not self._writer.in_transaction or _is_full(error)):
            raise error
        if isinstance(error, sqlite3.Error):
            outcome.error = databases.translated(error, self.path, WHAT)
        self._writer.execute("ROLLBACK TO request")

    def _set_durable(self, durable: bool) -> None:
        if self._sync and durable != self._durable:
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable


def _is_full(error: sqlite3.Error) -> bool:
    return primary_code(error) in DISK_FULL
