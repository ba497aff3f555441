"""For authors of snapshotters that overlayfs shows: the directories of a new snapshot, their owner, and ID mappings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from windlass.contracts.snapshots import LABEL_GID_MAPPING, LABEL_UID_MAPPING, Kind
from windlass.errors import InvalidArgument
from windlass_linux import idmap

UPPER = "fs"
WORK = "work"


def make(directory: Path, kind: Kind, owner: tuple[int, int]) -> None:
    """Make the upper directory of a snapshot, owned by ``owner`` (user, group), and what overlay works in if active."""
    upper = directory / UPPER
    upper.mkdir()
    upper.chmod(0o755)
    if kind == Kind.ACTIVE:
        work = directory / WORK
        work.mkdir()
        work.chmod(0o711)
    if owner != (os.geteuid(), os.getegid()):
        os.chown(upper, *owner)


def owner_of(labels: Mapping[str, str], parent: Path | None, remap_ids: bool) -> tuple[int, int]:
    """Return who owns the root of a new snapshot on ``parent``: what is ID 0 inside, else the parent's owner.

    ``remap_ids``: snapshots are shown by mounts that are mapped. Raises InvalidArgument for labels that are no mapping.
    """
    if (LABEL_UID_MAPPING in labels) != (LABEL_GID_MAPPING in labels):
        raise InvalidArgument(f"labels {LABEL_UID_MAPPING} and {LABEL_GID_MAPPING} only work together")
    if LABEL_UID_MAPPING in labels:
        roots = idmap.root_of(labels[LABEL_UID_MAPPING]), idmap.root_of(labels[LABEL_GID_MAPPING])
        # Without a parent it is shown by a bind that is mapped itself, and must not be mapped twice.
        return roots if parent or not remap_ids else (0, 0)
    if parent is None:
        return os.geteuid(), os.getegid()
    below = (parent / UPPER).stat()
    return below.st_uid, below.st_gid


def mapping_options(labels: Mapping[str, str]) -> list[str]:
    """Return the mount options for the ID mapping that the labels ask for."""
    wanted = (("uidmap", LABEL_UID_MAPPING), ("gidmap", LABEL_GID_MAPPING))
    return [f"{option}={labels[label]}" for option, label in wanted if label in labels]
