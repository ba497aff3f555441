"""How the files of a snapshotter of containerd's become those of Windlass's: where both keep which snapshot.

============  ==========================================  =================================
snapshotter   containerd                                  Windlass
============  ==========================================  =================================
overlayfs     `snapshots/ID/`                             the same
native        `snapshots/ID/`                             the same; a view has an empty one
erofs         `snapshots/ID/`                             the same
blockfile     `snapshots/ID`, a file                      `snapshots/ID/blockfile`
btrfs         `active/ID`, `view/ID`, `snapshots/ID`      `snapshots/ID/fs`
============  ==========================================  =================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from windlass.contracts.snapshots import Kind
from windlass_adopt.steps import AnyStep, Make, Move, MoveSubvolume
from windlass_storage.snapshot_table import Kept

BLOCKFILE, SCRATCH = "blockfile", "scratch"
SUBVOLUME = "fs"
BTRFS = {Kind.ACTIVE: "active", Kind.VIEW: "view", Kind.COMMITTED: "snapshots"}
TAKEN = ".containerd"
WRITABLE_IMAGE = "rwlayer.img"


def moved(name: str, source: Path, target: Path, kept: Sequence[Kept]) -> Iterator[AnyStep]:
    """Yield the steps for a snapshotter whose files change their places; ``target`` has no snapshots."""
    taken = target / TAKEN
    for directory in sorted(set(BTRFS.values()) if name == "btrfs" else {"snapshots"}):
        if (source / directory).is_dir():
            yield Move.of(source / directory, taken / directory)
    yield Make(str(target / "snapshots"))
    for each in kept:
        place = target / "snapshots" / str(each.id)
        yield Make(str(place))
        if name == "btrfs":
            kind = BTRFS[each.kind]
            yield MoveSubvolume(str(taken / kind / str(each.id)), str(place / SUBVOLUME), each.kind != Kind.ACTIVE)
        else:
            yield Move(str(taken / "snapshots" / str(each.id)), str(place / BLOCKFILE))
    if name == "blockfile" and not (target / SCRATCH).exists():
        yield Move(str(source / SCRATCH), str(target / SCRATCH))


def changes(name: str) -> bool:
    """Return whether the files of a snapshotter are elsewhere than in containerd's."""
    return name in ("btrfs", "blockfile")


def problems(name: str, source: Path) -> list[str]:
    """Return what of a snapshotter's files cannot be taken."""
    if name != "erofs":
        return []
    images = sorted(each.parent.name for each in (source / "snapshots").glob(f"*/{WRITABLE_IMAGE}"))
    return [f"snapshot {id} of erofs: it is written to in {WRITABLE_IMAGE}, which Windlass cannot" for id in images]
