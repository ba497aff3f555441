"""Contract: descriptions of mounts, which somebody else carries out.

Snapshotters return them; the shim, the differ and clients mount them. What the
options mean beyond mount(8) is in docs/containerd 3.7, "Mount semantics".
"""

from __future__ import annotations

from windlass.records import dataclass


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount(2): filesystem type, source, and options as in fstab; ``target`` is a path below the mount root."""

    type: str
    source: str
    options: tuple[str, ...] = ()
    target: str = ""
