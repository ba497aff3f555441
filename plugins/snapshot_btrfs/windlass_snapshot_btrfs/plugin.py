"""Registers the btrfs snapshotter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from windlass.contracts.snapshots import SNAPSHOTTER
from windlass.contracts.values import host_architecture
from windlass.plugin import InitContext, Plugin, SkipPlugin
from windlass.records import dataclass

if TYPE_CHECKING:
    from windlass_snapshot_btrfs.snapshotter import BtrfsSnapshotter


@dataclass(frozen=True)
class Config:
    """Configuration of the btrfs snapshotter."""

    root_path: str = ""
    """Where snapshots and their database are kept, on btrfs; empty for the plugin's own directory."""


def init(context: InitContext) -> BtrfsSnapshotter:
    """Open the snapshots below the root, if it is on btrfs."""
    from windlass_snapshot_btrfs.filesystem import filesystem_of
    from windlass_snapshot_btrfs.snapshotter import BtrfsSnapshotter

    config = context.config(Config)
    root = Path(config.root_path) if config.root_path else context.root
    kind, _ = filesystem_of(root)
    if kind != "btrfs":
        raise SkipPlugin(f"{root} is on {kind}, snapshots need btrfs; set root_path to a directory that is on it")
    context.meta.exports["root"] = str(root)
    context.meta.platforms.append(("linux", host_architecture(), ""))
    snapshotter = BtrfsSnapshotter(root)
    context.on_stop(snapshotter.close)
    return snapshotter


PLUGIN = Plugin(SNAPSHOTTER, id="btrfs", init=init, config=Config)
