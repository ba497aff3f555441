"""Devices of the host, as a container's spec describes them (docs/containerd 5.7)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from windlass.errors import Unknown
from windlass_oci.runtime_spec import Device, DeviceRule

DEVICES = Path("/dev")
OWN = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"})
"""What each container has of its own below /dev."""
ANY = "rwm"


def rule(allowed: Device, access: str) -> DeviceRule:
    """Return the rule that lets a container use a device."""
    return {
        "allow": True,
        "access": access,
        "type": allowed["type"],
        "major": allowed["major"],
        "minor": allowed["minor"],
    }


def named(path: str, place: str) -> list[Device]:
    """Return the device that a path of the host names, or all in a directory; an empty place is its own.

    Raises Unknown.
    """
    try:
        real = Path(path).resolve(strict=True)
    except OSError as error:
        raise Unknown(f"lstat {path}: {(error.strerror or '').lower()}") from None
    place = place or str(real)
    if real.is_dir():
        return [device(each, f"{place.rstrip('/')}/{each.relative_to(real)}") for each in below(real)]
    return [device(real, place)]


def device(path: Path, place: str) -> Device:
    """Describe a device of the host. Raises Unknown for what is not one."""
    try:
        found = path.stat()
    except OSError as error:
        raise Unknown(f"lstat {path}: {(error.strerror or '').lower()}") from None
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise Unknown(f"{path} is not a device node")
    return {
        "path": place,
        "type": "b" if stat.S_ISBLK(found.st_mode) else "c",
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


def below(directory: Path) -> Iterator[Path]:
    """Yield the device files below a directory, but those that each container has of its own; links are left out."""
    for path in _sorted(directory):
        if path.name in OWN or path.is_symlink():
            continue
        if path.is_dir():
            yield from below(path)
        elif path.is_char_device() or path.is_block_device():
            yield path


def _sorted(directory: Path) -> Iterable[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:  # it was taken away meanwhile
        return ()
