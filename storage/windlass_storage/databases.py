"""SQLite files that belong to one process: opening one needs no space, and each error says what is wrong.

SQLite's VFS ``unix-excl`` locks a file for the process and keeps the index of the log in its memory
(sqlite.org/vfs.html), where others make a ``-shm`` file of 32 KiB. And the space that is kept back for
deletions becomes the log, blocks and all, when the file is opened. So no process can take between one step and
the next what a daemon needs to start: a disk may be filled at any moment.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from windlass import faults
from windlass.errors import DataLoss, Error, Internal, NoSpace, Unavailable
from windlass_storage.disks import explained, refusal
from windlass_storage.reserve import Reserve

T = TypeVar("T")

MODE = 0o600
PRIMARY_CODE = 0xFF
"""The low byte of an extended result code is the primary one (sqlite.org/rescode.html)."""
CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
BROKEN = ("SQLITE_IOERR_READ", "SQLITE_IOERR_SHORT_READ", "SQLITE_IOERR_DATA", "SQLITE_IOERR_CORRUPTFS")
DISK = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


def connect(path: Path, timeout: float, cached_statements: int = 128) -> sqlite3.Connection:
    """Open the database at ``path``; transactions begin and end where we say so.

    A connection may go from thread to thread, and is used by one at a time.
    """
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?vfs=unix-excl",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=cached_statements,
    )


def opened(path: Path, reserve: Reserve, open: Callable[[], T]) -> T:
    """Return what ``open`` makes of the database at ``path``; what is kept back is its log, or given up for it."""
    make_private(path)
    reserve.become(log_of(path))
    try:
        found = open()
    except NoSpace:
        if not reserve.spend():
            raise
        found = open()
    reserve.refill()
    return found


def close(db: sqlite3.Connection, path: Path, reserve: Reserve) -> None:
    """Close the last connection to a database; a full disk does not get the blocks of its log, the next start does."""
    try:
        busy, there, copied = db.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        if not busy and there == copied:
            reserve.adopt(log_of(path))
    except sqlite3.Error:
        pass  # then the log stays, and with it what is not in the database yet
    db.close()


def make_private(path: Path) -> None:
    """Make the file of a database that is not open yet, or take it from everybody but its owner.

    SQLite makes it with the process's mask, and its log with the mode of the file.
    """
    try:
        path.touch(MODE)
        for file in (path, log_of(path)):
            if file.exists():
                file.chmod(MODE)
        # Of a Windlass that kept the index of the log in a file.
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    except OSError:
        pass  # read-only, or full: SQLite finds that out as well, and more of it


def log_of(path: Path) -> Path:
    """Return the name of a database's log."""
    return path.with_name(f"{path.name}-wal")


def reuse_log(db: sqlite3.Connection) -> None:
    """Copy what is in the log into the database, if that can be, so that the next transaction needs no new blocks."""
    try:
        db.execute(CHECKPOINT)
    except sqlite3.Error:
        pass  # then the log grows


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's code; 0 for an error of the module's own, such as "Cannot operate on a closed database."."""
    return getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE


@contextmanager
def sqlite_errors(path: Path, what: str = "database", closed: type[Error] = Unavailable) -> Iterator[None]:
    """Turn an error of SQLite's into the one that the caller gets; ``closed`` after the database was closed."""
    try:
        yield
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
            raise closed(f"{what} {path} is closed: the daemon is stopping") from error
        raise translated(error, path, what) from error


def _is_bolt(path: Path) -> bool:
    """Return whether a file is a database of bbolt's, by the number in its first page."""
    try:
        with path.open("rb") as file:
            return file.read(20)[16:] in (bytes.fromhex("edda0ced"), bytes.fromhex("ed0cdaed"))
    except OSError:
        return False


def translated(error: sqlite3.Error, path: Path, what: str = "database") -> Error:
    """Return what the caller gets for an error of SQLite's.

    SQLite says little about why a disk refuses, so this writes to the disk and sees.
    """
    name, code = f"{what} {path}", primary_code(error)
    if isinstance(error.__cause__, OSError):
        refused = explained(error.__cause__, f"write {name}", path.parent)
        if refused is not None:
            return refused
    if code == sqlite3.SQLITE_FULL:
        return NoSpace(f"no space left for {name}; make room on its disk")
    if code == sqlite3.SQLITE_NOTADB and _is_bolt(path):
        return DataLoss(
            f"{name} is one of containerd's; set another root, or move it away together with what it describes"
        )
    if code in DAMAGED:
        return DataLoss(f"{name} is damaged ({error}); restore it, or move it away together with what it describes")
    if code in LOCKED:
        return Unavailable(f"{name} is locked by another process; stop it: {error}")
    if code in DISK:
        return _disk_refused(error, path, name)
    return Internal(f"{name}: {error}")


def _disk_refused(error: sqlite3.Error, path: Path, name: str) -> Error:
    if getattr(error, "sqlite_errorname", "") in BROKEN:
        return DataLoss(f"{name} cannot be read ({error}): input/output error; look at the disk")
    reason = refusal(path.parent)
    refused = explained(reason, f"write {name}", path.parent) if reason else None
    if refused is None and primary_code(error) == sqlite3.SQLITE_READONLY:
        return Internal(f"{name}: {error}")  # a reader of ours that writes
    return refused or Unavailable(f"{name} cannot be used ({error}); try again, and look at its disk if that stays")


def fault_point(name: str) -> None:
    """Do what is armed for the fault point ``name``; an error is SQLite's."""
    try:
        faults.point(name)
    except OSError as error:
        raise sqlite3.OperationalError(str(error)) from error
