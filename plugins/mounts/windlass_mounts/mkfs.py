"""Makes filesystems in files, by the programs of e2fsprogs and xfsprogs."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from windlass.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Unimplemented

TIMEOUT = 50.0
"""Seconds, less than a call between plugins may take."""
SEARCHED = "/usr/local/sbin:/usr/sbin:/sbin"
SHOWN = 400


def _ext(uuid: str) -> list[str]:
    return ["-q", "-F", *(["-U", uuid] if uuid else [])]


def _xfs(uuid: str) -> list[str]:
    return ["-q", "-f", *(["-m", f"uuid={uuid}"] if uuid else [])]


ARGUMENTS: Mapping[str, Callable[[str], list[str]]] = {"ext2": _ext, "ext3": _ext, "ext4": _ext, "xfs": _xfs}
PACKAGES = {"xfs": "xfsprogs"}


def make_image(path: Path, size: int, kind: str, uuid: str = "") -> None:
    """Make a sparse file with an empty filesystem of ``kind``; one that is there stays as it is.

    Raises InvalidArgument (kind), Unimplemented (program is not installed), FailedPrecondition (it refuses).
    """
    if kind not in ARGUMENTS:
        raise InvalidArgument(f"filesystem {kind[:40]!r} cannot be made, there are {', '.join(sorted(ARGUMENTS))}")
    if path.exists():
        return
    # Under another name until it is complete; a second maker at the same time is none the worse.
    new = path.with_name(f".{path.name[:200]}-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    except FileNotFoundError:
        raise FailedPrecondition(f"{path.parent} does not exist, so no filesystem can be made in it") from None
    try:
        try:
            os.fchmod(descriptor, 0o640)
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)
        _run(f"mkfs.{kind}", [*ARGUMENTS[kind](uuid), str(new)], PACKAGES.get(kind, "e2fsprogs"))
        with suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)


def _run(program: str, arguments: list[str], package: str) -> None:
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{SEARCHED}")
    if found is None:
        raise Unimplemented(f"{program} is not installed; install {package}")
    try:
        done = subprocess.run(
            [found, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"{program} {arguments[-1]} took longer than {TIMEOUT:g} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-SHOWN:]
        raise FailedPrecondition(f"{program} {arguments[-1]} failed: {said or f'exit code {done.returncode}'}")
