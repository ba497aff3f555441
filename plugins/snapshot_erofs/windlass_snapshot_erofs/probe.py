"""Finds out whether images can be made and mounted below a directory, by doing it there.

The directories for it stay from one start to the next, and the image is made elsewhere: then a probe needs no
space below the root, and a disk that somebody fills at this very moment does not cost the snapshotter.
"""

from __future__ import annotations

import logging
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.errors import Error, is_full
from windlass.plugin import SkipPlugin
from windlass_snapshot_erofs.handler import ErofsHandler
from windlass_snapshot_erofs.images import PROGRAM, Images, set_immutable
from windlass_snapshot_erofs.layers import Features
from windlass_storage import apart, trees
from windlass_storage.disks import disk_errors, private_directory
from windlass_storage.probing import overlay_failure

logger = logging.getLogger(__name__)

SCRATCH = "probe"
INDEX = Path("/sys/module/overlay/parameters/index")
MAPPING = ("uidmap=0:1000:65536", "gidmap=0:1000:65536")
WHOLE_RANGE = ["0", "0", "4294967295"]
"""user_namespaces(7): the map of the initial user namespace."""


def probe(root: Path, images: Images, elsewhere: Path) -> Features:
    """Return what works below ``root``, which is made, with an image that is made below ``elsewhere``.

    Raises SkipPlugin, with the remedy, where images do not work; NoSpace.
    """
    for path in (root, elsewhere):
        if unfit := set(":,\\{}").intersection(str(path)):
            raise SkipPlugin(
                f"{path} has {' and '.join(sorted(unfit))} in its name, which overlay mounts cannot; rename it"
            )
    if not images.program:
        raise SkipPlugin(f"{PROGRAM} is not installed; install erofs-utils")
    if "\terofs\n" not in Path("/proc/filesystems").read_text():
        raise SkipPlugin("this Linux has no erofs; try modprobe erofs, or another snapshotter")
    if Path("/proc/self/uid_map").read_text().split() != WHOLE_RANGE:
        raise SkipPlugin("images cannot be mounted in a user namespace; run the daemon outside of it")
    scratch, lower, image = root / SCRATCH, elsewhere / "lower", elsewhere / "image"
    with disk_errors(f"try images in {root}", root):
        private_directory(scratch)
        private_directory(elsewhere)
        try:
            return apart.run(lambda: _try(scratch, images, image, lower), elsewhere)
        finally:
            image.unlink(missing_ok=True)
            trees.remove(lower)


def _try(scratch: Path, images: Images, image: Path, lower: Path) -> Features:
    for name in ("upper", "work", "merged"):
        (scratch / name).mkdir(exist_ok=True)
    try:
        images.make(scratch / "upper", image)
        ErofsHandler().mount(Mount("erofs", str(image), ("ro", "loop")), str(lower), ())
    except (Error, OSError) as error:
        if is_full(error):
            raise
        raise SkipPlugin(
            f"no image can be made and mounted in {scratch.parent}: {error}; try another root_path"
        ) from error
    if reason := _overlay_failure(scratch, lower):
        raise SkipPlugin(f"overlay cannot be mounted in {scratch.parent}: {reason}; try another root_path")
    if images.immutable:
        _try_immutable(scratch / "immutable")
    mapped = _overlay_failure(scratch, lower, *MAPPING)
    if mapped:
        logger.info("there is no ID-mapped overlay on images in %s: %s", scratch.parent, mapped)
    return Features(remap_ids=not mapped, index=INDEX.exists())


def _try_immutable(file: Path) -> None:
    """Make a file immutable and not: one without blocks, on the filesystem where images will be."""
    file.touch()
    try:
        set_immutable(file, True)
    except OSError as error:
        raise SkipPlugin(
            f"files in {file.parent.parent} cannot be immutable: {error.strerror}; leave set_immutable off"
        ) from error
    set_immutable(file, False)


def _overlay_failure(scratch: Path, lower: Path, *options: str) -> str:
    """Return why an overlay on an image cannot be mounted, empty if it can; raises OSError for want of space."""
    layers = [f"lowerdir={lower}", f"upperdir={scratch}/upper", f"workdir={scratch}/work"]
    if INDEX.exists():
        # With an index, an upper directory would belong to the image of the last start.
        layers.append("index=off")
    return overlay_failure((*layers, *options), scratch / "work", scratch / "merged")
