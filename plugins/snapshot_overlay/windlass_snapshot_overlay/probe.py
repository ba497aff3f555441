"""Finds out what overlayfs can do below a directory, by doing it there.

The directories for it stay from one start to the next: then a probe needs no space, and a disk that is full,
or that somebody fills at this very moment, does not cost the snapshotter.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from windlass.plugin import SkipPlugin
from windlass_linux import mounting
from windlass_snapshot_overlay.layers import Features
from windlass_storage.disks import disk_errors, private_directory
from windlass_storage.probing import overlay_failure

logger = logging.getLogger(__name__)

WHOLE_RANGE = ["0", "0", "4294967295"]
"""user_namespaces(7): the map of the initial user namespace."""
SCRATCH = "probe"
INDEX = Path("/sys/module/overlay/parameters/index")
SOME_MAPPING = "0:1000:65536"


def probe(root: Path) -> Features:
    """Return what works below ``root``, which is made; raises SkipPlugin where overlayfs does not, NoSpace."""
    # Colons separate layers and commas options; Linux accepts escaped ones, but clients that take mounts apart do not.
    if unfit := set(":,\\").intersection(str(root)):
        raise SkipPlugin(
            f"{root} has {' and '.join(sorted(unfit))} in its name, which overlay mounts cannot; rename it"
        )
    scratch = root / SCRATCH
    with disk_errors(f"try overlay in {root}", root):
        private_directory(scratch)
        # Of a daemon that was killed in it.
        mounting.unmount_all(scratch / "merged")
        return _tried(root, scratch)


def _tried(root: Path, scratch: Path) -> Features:
    if not has_d_type(scratch):
        raise SkipPlugin(f"{root} is on a filesystem without d_type; use another, for xfs make it with ftype=1")
    user_namespace = Path("/proc/self/uid_map").read_text().split() != WHOLE_RANGE
    # As all mounts of ours; and with an index a copy of these directories elsewhere would not do.
    own = ["index=off"] if INDEX.exists() else []
    own += ["userxattr"] if user_namespace else []
    if reason := failure(scratch, own):
        raise SkipPlugin(f"overlay cannot be mounted in {root}: {reason}; try modprobe overlay, or another root_path")
    mapped = failure(scratch, [*own, f"uidmap={SOME_MAPPING}", f"gidmap={SOME_MAPPING}"])
    if mapped:
        logger.info("%s has no ID-mapped overlay: %s", root, mapped)
    return Features(remap_ids=not mapped, index=INDEX.exists(), user_namespace=user_namespace)


def has_d_type(scratch: Path) -> bool:
    """Return whether directory entries know their type, without which overlayfs shows whiteouts as files."""
    # A symbolic link, which has no blocks of its own.
    link = scratch / "d_type"
    link.unlink(missing_ok=True)
    link.symlink_to("nowhere")
    with os.scandir(scratch) as entries:
        found = next(entry for entry in entries if entry.name == link.name)
    link.unlink()
    # Python asks the filesystem only for entries without a type, and this one is gone.
    return found.is_symlink()


def failure(scratch: Path, options: Sequence[str]) -> str:
    """Return why an overlay of two layers cannot be mounted, empty if it can; raises OSError for want of space."""
    for name in ("lower1", "lower2", "upper", "work", "merged"):
        (scratch / name).mkdir(exist_ok=True)
    layers = (
        f"lowerdir={scratch}/lower2:{scratch}/lower1",
        f"upperdir={scratch}/upper",
        f"workdir={scratch}/work",
    )
    return overlay_failure((*layers, *options), scratch / "work", scratch / "merged")
