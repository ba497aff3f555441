"""Small files that are there in full or not at all, and errors of the disk in the words of the contract."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from windlass.errors import DataLoss, Error, FailedPrecondition, PermissionDenied, ResourceExhausted

FULL = {errno.ENOSPC, errno.EDQUOT}
TOO_MANY_FILES = {errno.EMFILE, errno.ENFILE}


@contextmanager
def disk_errors(doing: str, where: Path) -> Iterator[None]:
    """Turn an OSError that an operator can do something about into one that says what failed and where."""
    try:
        yield
    except OSError as error:
        explained = explain(error, doing, where)
        if explained is None:
            raise
        raise explained from error


def explain(error: OSError, doing: str, where: Path) -> Error | None:
    """Return the error to tell the caller, None if ``error`` is a defect of ours."""
    if error.errno in FULL:
        return ResourceExhausted(f"cannot {doing}: no space left in {where}; make room and try again")
    if error.errno in TOO_MANY_FILES:
        return ResourceExhausted(f"cannot {doing}: too many open files; raise LimitNOFILE of the daemon")
    if error.errno == errno.EROFS:
        return FailedPrecondition(f"cannot {doing}: {where} is on a read-only file system")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDenied(f"cannot {doing}: no permission in {where}")
    if error.errno == errno.EIO:
        return DataLoss(f"cannot {doing}: input/output error in {where}; look at the disk")
    return None


def replace_file(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write ``path`` beside itself and rename it into place."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            write_all(descriptor, data)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of ``data``: write(2) may take less, at most 2 GiB at once."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
