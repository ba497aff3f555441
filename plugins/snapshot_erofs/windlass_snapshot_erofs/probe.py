"""Finds out whether images can be made and mounted below a directory, by doing it there."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from windlass import apart, mounting, trees
from windlass.errors import Error
from windlass.mounts import Mount
from windlass.plugin import SkipPlugin
from windlass_snapshot_erofs.handler import ErofsHandler
from windlass_snapshot_erofs.images import PROGRAM, Images, set_immutable
from windlass_snapshot_erofs.layers import Features

logger = logging.getLogger(__name__)

PREFIX = "probe-"
MAPPING = ("uidmap=0:1000:65536", "gidmap=0:1000:65536")
WHOLE_RANGE = ["0", "0", "4294967295"]
"""user_namespaces(7): the map of the initial user namespace."""


def probe(root: Path, images: Images) -> Features:
    """Return what works below ``root``, which is made; raises SkipPlugin, with the remedy, where images do not."""
    if unfit := set(":,\\{}").intersection(str(root)):
        raise SkipPlugin(
            f"{root} has {' and '.join(sorted(unfit))} in its name, which overlay mounts cannot; rename it"
        )
    if not images.program:
        raise SkipPlugin(f"{PROGRAM} is not installed; install erofs-utils")
    if "\terofs\n" not in Path("/proc/filesystems").read_text():
        raise SkipPlugin("this Linux has no erofs; try modprobe erofs, or another snapshotter")
    if Path("/proc/self/uid_map").read_text().split() != WHOLE_RANGE:
        raise SkipPlugin("images cannot be mounted in a user namespace; run the daemon outside of it")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in root.glob(f"{PREFIX}*"):
        # Whoever probed before was killed in it.
        trees.remove(left)
    scratch = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    try:
        return apart.run(lambda: _try(scratch, images), scratch)
    finally:
        trees.remove(scratch)


def _try(scratch: Path, images: Images) -> Features:
    for name in ("upper", "work", "merged"):
        (scratch / name).mkdir()
    image = scratch / "image"
    try:
        images.make(scratch / "upper", image)
        ErofsHandler().mount(Mount("erofs", str(image), ("ro", "loop")), str(scratch / "lower"), ())
    except (Error, OSError) as error:
        raise SkipPlugin(
            f"no image can be made and mounted in {scratch.parent}: {error}; try another root_path"
        ) from error
    if reason := _overlay_failure(scratch):
        raise SkipPlugin(f"overlay cannot be mounted in {scratch.parent}: {reason}; try another root_path")
    if images.immutable:
        try:
            set_immutable(image, True)
        except OSError as error:
            raise SkipPlugin(
                f"files in {scratch.parent} cannot be immutable: {error.strerror}; leave set_immutable off"
            ) from error
        set_immutable(image, False)
    mapped = _overlay_failure(scratch, *MAPPING)
    if mapped:
        logger.info("there is no ID-mapped overlay on images in %s: %s", scratch.parent, mapped)
    return Features(remap_ids=not mapped, index=Path("/sys/module/overlay/parameters/index").exists())


def _overlay_failure(scratch: Path, *options: str) -> str:
    """Return why an overlay on an image cannot be mounted, empty if it can."""
    layers = (f"lowerdir={scratch}/lower", f"upperdir={scratch}/upper", f"workdir={scratch}/work")
    merged = os.fspath(scratch / "merged")
    try:
        mounting.mount_one(Mount("overlay", "overlay", (*layers, *options)), merged)
    except OSError as error:
        return error.strerror or str(error)
    mounting.unmount(merged)
    return ""
