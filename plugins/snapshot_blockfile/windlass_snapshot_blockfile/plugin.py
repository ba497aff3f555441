"""Registers the blockfile snapshotter."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.contracts.snapshots import SNAPSHOTTER
from windlass.contracts.values import host_architecture
from windlass.plugin import InitContext, Plugin, SkipPlugin
from windlass.records import dataclass

if TYPE_CHECKING:
    from windlass_snapshot_blockfile.snapshotter import BlockfileSnapshotter


@dataclass(frozen=True)
class Config:
    """Configuration of the blockfile snapshotter."""

    root_path: str = ""
    """Where snapshots and their database are kept; empty for the plugin's own directory."""
    scratch_file: str = ""
    """A file with an empty filesystem, of the size that each snapshot has; copied once, to `scratch` below the root."""
    fs_type: str = "ext4"
    """The filesystem that is in it."""
    mount_options: tuple[str, ...] = ()
    """Added to every mount; `loop` always is."""
    recreate_scratch: bool = False
    """Copy `scratch_file` at every start, for snapshots that are made from then on."""


def init(context: InitContext) -> BlockfileSnapshotter:
    """See that there is an empty filesystem which can be mounted, and open the snapshots below the root."""
    if sys.platform != "linux":
        raise SkipPlugin(f"loop devices do not exist on {sys.platform}; run the daemon on Linux")
    if os.geteuid() != 0:
        raise SkipPlugin("only root can mount; run the daemon as root")
    from windlass_snapshot_blockfile import scratch
    from windlass_snapshot_blockfile.snapshotter import BlockfileSnapshotter

    config = context.config(Config)
    root = Path(config.root_path) if config.root_path else context.root
    given = Path(config.scratch_file) if config.scratch_file else None
    empty = scratch.require(root, given, config.fs_type, config.mount_options, config.recreate_scratch)
    context.meta.exports["root"] = str(root)
    context.meta.platforms.append(("linux", host_architecture(), ""))
    snapshotter = BlockfileSnapshotter(root, empty, config.fs_type, config.mount_options)
    context.on_stop(snapshotter.close)
    return snapshotter


PLUGIN = Plugin(SNAPSHOTTER, id="blockfile", init=init, config=Config)
