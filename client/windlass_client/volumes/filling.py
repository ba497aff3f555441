"""Copies what an image has at a place into the empty volume that comes there, as docker does."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.errors import FailedPrecondition
from windlass_linux import calls as linux
from windlass_oci.rootfs import looked_into
from windlass_storage import trees

MARK = "filling"
"""Next to a volume's data while it is being filled: after a crash the half that is there is thrown away."""


def any_empty(places: Iterable[Path]) -> bool:
    """Return whether one of the volumes is still to be filled."""
    return any(map(_is_empty, places))


def _is_empty(path: Path) -> bool:
    if _mark(path).exists():
        return True
    with os.scandir(path) as entries:
        return next(entries, None) is None


def _mark(path: Path) -> Path:
    return path.with_name(MARK)


def fill(mounts: Sequence[Mount], places: Mapping[str, Path]) -> None:
    """Fill the empty ones of some volumes, by their places in the root file system of ``mounts``. Blocks."""
    left = {place: path for place, path in places.items() if _is_empty(path)}
    try:
        looked_into(mounts, lambda root: _copy_all(root, left))
    except OSError as error:
        raise FailedPrecondition(f"the image's files cannot be copied into the volume: {error}") from None


def _copy_all(root: str, places: Mapping[str, Path]) -> None:
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for place, destination in places.items():
            _copy(top, place, destination)
    finally:
        os.close(top)


def _copy(top: int, place: str, destination: Path) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    resolve = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
    try:
        source = linux.openat2(top, place, flags, resolve=resolve)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return  # the image has no directory there
        raise
    try:
        _clear(destination)
        _mark(destination).touch()
        # Its path without links, in the mount namespace of this thread; no container runs that could change it.
        trees.copy(Path(f"/proc/self/fd/{source}").readlink(), destination)
        _mark(destination).unlink()
    finally:
        os.close(source)


def _clear(directory: Path) -> None:
    """Remove what an earlier attempt left."""
    for each in directory.iterdir():
        shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
