"""The files of one ingest: ``ref``, ``data``, ``startedat``, ``updatedat`` and ``total`` (docs/containerd 3.5)."""

from __future__ import annotations

import hashlib
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

from windlass.contracts.content import Status
from windlass_content.disk import replace_file

REF, DATA, STARTED_AT, UPDATED_AT, TOTAL = "ref", "data", "startedat", "updatedat", "total"
RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
SECOND = 1_000_000_000
MAX_SMALL_FILE = 128 << 10


def ingest_path(ingests: Path, ref: str) -> Path:
    """Return the directory of the ingest ``ref``; refs are free strings, so the name is a hash."""
    return ingests / hashlib.sha256(ref.encode()).hexdigest()


def create(path: Path, ref: str, total: int, now: int) -> None:
    """Write the files of a new ingest in the place of whatever is there.

    ``ref`` comes last: a directory without it is not an ingest, and is swept at the next start.
    """
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    try:
        path.joinpath(DATA).touch(0o644)
        # containerd reads these two; total is absent when it is not known.
        path.joinpath(STARTED_AT).write_text(format_time(now))
        path.joinpath(UPDATED_AT).write_text(format_time(now))
        if total:
            path.joinpath(TOTAL).write_text(str(total))
        replace_file(path / REF, ref.encode())
    except OSError:
        remove(path)
        raise


def remove(path: Path) -> None:
    """Remove the files of an ingest, ``ref`` first, so that no half of one is ever found."""
    path.joinpath(REF).unlink(missing_ok=True)
    try:
        for name in (DATA, STARTED_AT, UPDATED_AT, TOTAL):
            path.joinpath(name).unlink(missing_ok=True)
        path.rmdir()
    except OSError:  # something else is there too; the whole tree costs several times as much
        shutil.rmtree(path, ignore_errors=True)


def touch(path: Path, updated_at: int) -> None:
    """Record when the ingest was last written to."""
    replace_file(path / UPDATED_AT, format_time(updated_at).encode())


def read_status(path: Path) -> Status | None:
    """Describe the ingest in ``path``; None if there is none, or its files do not fit together."""
    try:
        data = path.joinpath(DATA).stat()
        ref = _small(path / REF).decode()
        started_at = parse_time(_small(path / STARTED_AT).decode())
        updated_at = parse_time(_small(path / UPDATED_AT).decode())
        total = int(_small(path / TOTAL)) if path.joinpath(TOTAL).exists() else 0
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if ingest_path(path.parent, ref) != path or total < 0:
        return None
    return Status(ref, data.st_size, total, "", started_at, max(updated_at, data.st_mtime_ns))


def _small(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_SMALL_FILE)


def format_time(nanoseconds: int) -> str:
    """Return RFC 3339 in UTC, with nanoseconds as Go writes them."""
    seconds, fraction = divmod(nanoseconds, SECOND)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{whole}{digits}Z"


def parse_time(text: str) -> int:
    """Return nanoseconds since the epoch; raises ValueError."""
    if not (match := RFC3339.fullmatch(text.strip())):
        raise ValueError(f"{text[:64]!r} is not an RFC 3339 time")
    whole = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    return int(whole.timestamp()) * SECOND + int((match[2] or "").ljust(9, "0"))
