"""Finds out what overlayfs can do below a directory, by doing it there."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from windlass import mounting, trees
from windlass.mounts import Mount
from windlass.plugin import SkipPlugin
from windlass_snapshot_overlay.layers import Features

logger = logging.getLogger(__name__)

WHOLE_RANGE = ["0", "0", "4294967295"]
"""user_namespaces(7): the map of the initial user namespace."""
PREFIX = "probe-"
SOME_MAPPING = "0:1000:65536"


def probe(root: Path) -> Features:
    """Return what works below ``root``, which is made; raises SkipPlugin where overlayfs does not."""
    # Colons separate layers and commas options; Linux can be told otherwise, but clients that take mounts apart cannot.
    if unfit := set(":,\\").intersection(str(root)):
        raise SkipPlugin(
            f"{root} has {' and '.join(sorted(unfit))} in its name, which overlay mounts cannot; rename it"
        )
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in root.glob(f"{PREFIX}*"):
        # Whoever probed before was killed in it.
        mounting.unmount_all(left / "merged")
        trees.remove(left)
    scratch = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    try:
        if not has_d_type(scratch):
            raise SkipPlugin(f"{root} is on a filesystem without d_type; use another, for xfs make it with ftype=1")
        user_namespace = Path("/proc/self/uid_map").read_text().split() != WHOLE_RANGE
        own = ["userxattr"] if user_namespace else []
        if reason := failure(scratch, own):
            raise SkipPlugin(
                f"overlay cannot be mounted in {root}: {reason}; try modprobe overlay, or another root_path"
            )
        mapped = failure(scratch, [*own, f"uidmap={SOME_MAPPING}", f"gidmap={SOME_MAPPING}"])
        if mapped:
            logger.info("%s has no ID-mapped overlay: %s", root, mapped)
        return Features(
            remap_ids=not mapped,
            index=Path("/sys/module/overlay/parameters/index").exists(),
            user_namespace=user_namespace,
        )
    finally:
        trees.remove(scratch)


def has_d_type(scratch: Path) -> bool:
    """Tell whether directory entries know their type, without which overlayfs shows whiteouts as files."""
    directory = scratch / "d_type"
    directory.mkdir()
    with os.scandir(scratch) as entries:
        found = next(entry for entry in entries if entry.name == directory.name)
    directory.rmdir()
    # Python asks the filesystem only for entries without a type, and this one is gone.
    return found.is_dir(follow_symlinks=False)


def failure(scratch: Path, options: Sequence[str]) -> str:
    """Return why an overlay of two layers cannot be mounted, empty if it can."""
    for name in ("lower1", "lower2", "upper", "work", "merged"):
        (scratch / name).mkdir(exist_ok=True)
    layers = (
        f"lowerdir={scratch}/lower2:{scratch}/lower1",
        f"upperdir={scratch}/upper",
        f"workdir={scratch}/work",
    )
    merged = str(scratch / "merged")
    try:
        mounting.mount_one(Mount("overlay", "overlay", (*layers, *options)), merged)
    except OSError as error:
        return error.strerror or str(error)
    mounting.unmount(merged)
    return ""
