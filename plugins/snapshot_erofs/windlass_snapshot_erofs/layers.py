"""What is where on disk, and which mounts show a snapshot: decided from facts alone (docs/containerd 2.2, "erofs").

Nothing here touches the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Kind
from windlass.records import dataclass
from windlass_storage.metastore import Record
from windlass_storage.upper_directories import UPPER, WORK, mapping_options

IMAGE = "layer.erofs"
MARK = ".erofslayer"
CONVERTED = ".converted"


@dataclass(frozen=True, slots=True)
class Features:
    """What overlay can do on top of images on this machine."""

    remap_ids: bool = False
    """Images may be lower directories of ID-mapped mounts."""
    index: bool = False
    """It has the parameter ``index``, which must be off: layers are shared by many mounts."""


def mounts(
    record: Record, directory: Callable[[int], Path], features: Features, configured: Sequence[str] = ()
) -> tuple[Mount, ...]:
    """Return the mounts of an active snapshot or a view; more than one is for a mount manager."""
    mapping = mapping_options(record.labels) if features.remap_ids else []
    own = directory(record.id)
    if not record.parents:
        mode = "ro" if record.kind == Kind.VIEW else "rw"
        return (Mount("bind", str(own / UPPER), (*mapping, mode, "rbind")),)
    images = tuple(Mount("erofs", str(directory(parent) / IMAGE), ("ro", "loop")) for parent in record.parents)
    if record.kind == Kind.VIEW and len(images) == 1 and not mapping:
        return images
    options = list(mapping)
    if record.kind == Kind.ACTIVE:
        options += [f"workdir={own / WORK}", f"upperdir={own / UPPER}"]
    lower = f"{{{{ overlay 0 {len(images) - 1} }}}}"
    if record.kind == Kind.VIEW and len(images) == 1:
        # overlayfs wants two lower directories where there is no upper one; the view's own is empty.
        lower += f":{own / UPPER}"
    options += [f"lowerdir={lower}", *configured]
    # Given twice, Linux answers EINVAL.
    if features.index and not any(option.startswith("index=") for option in configured):
        options.append("index=off")
    return (*images, Mount("format/overlay", "overlay", tuple(options)))


def directory_of(mounts: Sequence[Mount]) -> Path | None:
    """Return the directory of the active snapshot that ``mounts`` show, if they may be this snapshotter's."""
    if not mounts:
        return None
    last = mounts[-1]
    kind = last.type.rpartition("/")[2]
    if kind == "overlay":
        uppers = [option.removeprefix("upperdir=") for option in last.options if option.startswith("upperdir=")]
    else:
        binds = {"bind", "rbind"} & {kind, *last.options} and "ro" not in last.options
        uppers = [last.source] if binds and len(mounts) == 1 else []
    upper = Path(uppers[0]) if len(uppers) == 1 else None
    return upper.parent if upper and upper.is_absolute() and upper.name == UPPER else None
