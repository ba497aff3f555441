"""The file that every snapshot without a parent is a copy of: an empty filesystem, of the size that containers get."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.errors import InvalidArgument, is_full
from windlass.plugin import SkipPlugin
from windlass_storage import apart, trees

NAME = "scratch"
PROBE = "probe"
LOST = "lost+found"
ROOT_MODE = 0o755


def require(root: Path, given: Path | None, fs_type: str, options: Sequence[str], again: bool = False) -> Path:
    """Return the empty filesystem below ``root``, made of ``given`` if it is not there, or ``again`` is wanted.

    Raises SkipPlugin, with the remedy, where there is none or it cannot be mounted; InvalidArgument for a ``given``
    that is not there.
    """
    scratch = root / NAME
    if given is None or (scratch.exists() and not again):
        if not scratch.exists():
            raise SkipPlugin(
                f"there is no {scratch}; make an empty filesystem in a file, with truncate and mkfs.{fs_type}, "
                "and set scratch_file to its path"
            )
        _try(Mount(fs_type, str(scratch), (*options, "loop", "ro")))
        return scratch
    if not given.is_file():
        raise InvalidArgument(f"scratch_file {given} is not a file; make it with truncate and mkfs.{fs_type}")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = scratch.with_suffix(".new")
    new.unlink(missing_ok=True)
    try:
        trees.copy_file(given, new)
        _try(Mount(fs_type, str(new), (*options, "loop", "rw")), _empty)
        _sync(new)
        new.replace(scratch)
        _sync(root)
    finally:
        new.unlink(missing_ok=True)
    return scratch


def _empty(top: Path) -> None:
    """Make of a fresh filesystem what an empty snapshot looks like."""
    top.chmod(ROOT_MODE)
    if (top / LOST).is_dir():
        (top / LOST).rmdir()
    if left := sorted(top.iterdir()):
        raise InvalidArgument(
            f"the filesystem in scratch_file is not empty, it has {left[0].name[:80]!r}; make it anew"
        )


def _try(mount: Mount, work: apart.Work = lambda _: None) -> None:
    """Mount the file where no other process sees it, and call ``work`` there. Raises OSError when there is no room."""
    try:
        apart.mounted((mount,), Path(mount.source).with_name(PROBE), work)
    except OSError as error:
        if is_full(error):
            raise
        raise SkipPlugin(
            f"{mount.source} cannot be mounted: {error.strerror or error}; see that it holds {mount.type}, "
            f"and try modprobe loop {mount.type}"
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
