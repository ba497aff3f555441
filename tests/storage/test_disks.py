"""What a disk refuses is one class of error for each errno, and databases tell the same as files."""

from __future__ import annotations

import errno
import gc
import os
import resource
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Kind
from windlass.errors import (
    DataLoss,
    Error,
    FailedPrecondition,
    Internal,
    NoSpace,
    PermissionDenied,
    ResourceExhausted,
    is_full,
)
from windlass_linux import calls as linux
from windlass_linux import mounting
from windlass_storage import databases, disks
from windlass_storage.metastore import Metastore

KINDS = {
    errno.ENOSPC: (NoSpace, "no space left in /d; make room"),
    errno.EDQUOT: (NoSpace, "no space left in /d under its quota"),
    errno.EMFILE: (ResourceExhausted, "too many open files"),
    errno.ENFILE: (ResourceExhausted, "too many open files"),
    errno.EROFS: (FailedPrecondition, "/d is on a read-only file system"),
    errno.EACCES: (PermissionDenied, "no permission in /d"),
    errno.EIO: (DataLoss, "input/output error in /d"),
    errno.EUCLEAN: (DataLoss, "input/output error in /d"),
}


@pytest.mark.parametrize(("number", "told"), KINDS.items())
def test_each_errno_is_one_class(number: int, told: tuple[type[Error], str]) -> None:
    """Only a lack of space is told as one; what is a defect of ours stays what it is."""
    kind, text = told
    with pytest.raises(kind, match=text) as caught, disks.disk_errors("write it", Path("/d")):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind
    assert is_full(caught.value) == (kind is NoSpace) == is_full(OSError(number, ""))


@pytest.mark.parametrize(("number", "told"), KINDS.items())
def test_a_database_tells_the_same(number: int, told: tuple[type[Error], str]) -> None:
    """Where SQLite passes on what it was told."""
    error = sqlite3.OperationalError("disk I/O error")
    error.__cause__ = OSError(number, os.strerror(number))
    assert type(databases.translated(error, Path("/d/x.db"))) is told[0]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    with mounting.mounted([Mount("tmpfs", "tmpfs", ("size=1M",))], tmp_path) as place:
        yield Path(place)


def test_a_read_only_disk_is_not_told_as_a_full_one(place: Path) -> None:
    """Nor is it a defect; mounted writable again it works."""
    with closing(Metastore(place / "x.db")) as store:
        store.create(Kind.ACTIVE, "before")
    linux.mount("", str(place), "", linux.MS_REMOUNT | linux.MS_RDONLY)
    error = sqlite3.OperationalError("attempt to write a readonly database")
    error.sqlite_errorcode = sqlite3.SQLITE_READONLY
    told = databases.translated(error, place / "x.db")
    assert isinstance(told, FailedPrecondition) and "read-only file system; mount it writable" in str(told)
    for name in ("x.db", "new.db"):
        with pytest.raises(FailedPrecondition, match="read-only file system; mount it writable"):
            Metastore(place / name)

    linux.mount("", str(place), "", linux.MS_REMOUNT)
    with closing(Metastore(place / "x.db")) as store:
        assert store.stat("before").kind == Kind.ACTIVE
        store.create(Kind.ACTIVE, "after")


def test_a_disk_is_asked_why_it_refuses(place: Path) -> None:
    """SQLite says "unable to open" or "disk I/O error" for most; full is told as full."""
    with (place / "filler").open("wb") as filler, pytest.raises(OSError, match="No space"):
        while True:
            os.posix_fallocate(filler.fileno(), os.fstat(filler.fileno()).st_size, 4096)
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    assert isinstance(databases.translated(error, place / "x.db"), NoSpace)


def test_too_many_open_files_are_told_as_such(tmp_path: Path) -> None:
    """SQLite says that it is unable to open the file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        told = databases.translated(error, tmp_path / "x.db")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert type(told) is ResourceExhausted


def test_a_reader_that_writes_is_a_defect(tmp_path: Path) -> None:
    error = sqlite3.OperationalError("attempt to write a readonly database")
    error.sqlite_errorcode = sqlite3.SQLITE_READONLY
    assert type(databases.translated(error, tmp_path / "x.db")) is Internal


def test_directories_are_private_from_the_top(tmp_path: Path) -> None:
    """What is missing above, too; one that is there already is taken from others, what is above it not."""
    (tmp_path / "there").mkdir(0o755)
    disks.private_directory(tmp_path / "there/new/store")
    disks.private_directory(tmp_path / "there")
    names = ("there", "there/new", "there/new/store")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in names] == [0o700] * 3


def test_an_error_goes_with_who_catches_it(tmp_path: Path) -> None:
    """Without the garbage collector: what could not be written may be large."""

    class Large:
        """What was being written."""

    def write(large: Large) -> None:
        with disks.disk_errors("write it", tmp_path):
            raise OSError(errno.ENOSPC, "full")

    large = Large()
    kept = weakref.ref(large)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(NoSpace):
            write(large)
        del large
        assert kept() is None
    finally:
        gc.enable()
