"""Which mounts show a snapshot, decided from facts alone (docs/containerd 3.7, "Overlayfs").

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


@dataclass(frozen=True, slots=True)
class Features:
    """What overlayfs can do on this machine and this filesystem."""

    remap_ids: bool = False
    """Its lower directories may be ID-mapped mounts."""
    index: bool = False
    """It has the parameter ``index``, which must be off: layers are shared by many mounts."""
    user_namespace: bool = False
    """The daemon runs in a user namespace, where overlay keeps its marks in ``user.`` attributes."""


def mounts(
    record: Record,
    directory: Callable[[int], Path],
    features: Features,
    configured: Sequence[str] = (),
) -> tuple[Mount, ...]:
    """Return the mounts for an active snapshot or a view; clients rely on the order of the options."""
    options = mapping_options(record.labels) if features.remap_ids else []
    if not record.parents:
        # overlayfs refuses to mount with no lower directory.
        mode = "ro" if record.kind == Kind.VIEW else "rw"
        return (Mount("bind", str(directory(record.id) / UPPER), (*options, mode, "rbind")),)
    if record.kind == Kind.VIEW and len(record.parents) == 1:
        return (Mount("bind", str(directory(record.parents[0]) / UPPER), (*options, "ro", "rbind")),)
    if record.kind == Kind.ACTIVE:
        own = directory(record.id)
        options += [f"workdir={own / WORK}", f"upperdir={own / UPPER}"]
    options.append("lowerdir=" + ":".join(str(directory(parent) / UPPER) for parent in record.parents))
    options += configured
    if features.user_namespace and "userxattr" not in configured:
        options.append("userxattr")
    # Given twice, Linux answers EINVAL.
    if features.index and not any(option.startswith("index=") for option in configured):
        options.append("index=off")
    return (Mount("overlay", "overlay", tuple(options)),)
