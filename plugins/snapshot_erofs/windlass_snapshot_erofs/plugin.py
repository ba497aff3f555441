"""Registers the erofs snapshotter, its differ, and what mounts its images."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.contracts.activations import MOUNT_HANDLER, MountHandler
from windlass.contracts.diff import DIFFER, Differ
from windlass.contracts.snapshots import SNAPSHOTTER
from windlass.contracts.values import host_architecture
from windlass.plugin import InitContext, Plugin, SkipPlugin
from windlass.records import dataclass

if TYPE_CHECKING:
    from windlass_snapshot_erofs.snapshotter import ErofsSnapshotter


@dataclass(frozen=True)
class Config:
    """Configuration of the erofs snapshotter."""

    root_path: str = ""
    """Where snapshots and their database are kept; empty for the plugin's own directory."""
    ovl_mount_options: tuple[str, ...] = ()
    """Added to every overlay mount."""
    set_immutable: bool = False
    """Give images the attribute `i` of chattr(1), so that not even root changes one by mistake."""
    mkfs_options: tuple[str, ...] = ()
    """Added to the command line of `mkfs.erofs`."""


def init(context: InitContext) -> ErofsSnapshotter:
    """Find out whether images can be made and mounted below the root, and open the snapshots there."""
    _require_root()
    from windlass_snapshot_erofs.images import Images
    from windlass_snapshot_erofs.probe import probe
    from windlass_snapshot_erofs.snapshotter import ErofsSnapshotter

    config = context.config(Config)
    root = Path(config.root_path) if config.root_path else context.root
    images = Images(config.mkfs_options, immutable=config.set_immutable)
    features = probe(root, images, context.state)
    context.meta.exports["root"] = str(root)
    context.meta.platforms.append(("linux", host_architecture(), ""))
    if features.remap_ids:
        context.meta.capabilities.append("remap-ids")
    context.meta.capabilities += ["only-remap-ids", "rebase"]
    snapshotter = ErofsSnapshotter(root, images, features, config.ovl_mount_options)
    context.on_stop(snapshotter.close)
    return snapshotter


def init_differ(context: InitContext) -> Differ:
    """Take layers that are images already."""
    _require_root()
    from windlass_snapshot_erofs.differ import ErofsDiffer

    context.meta.platforms.append(("linux", host_architecture(), ""))
    return ErofsDiffer()


def init_handler(context: InitContext) -> MountHandler:
    """Mount images, with or without loop devices."""
    _require_root()
    from windlass_snapshot_erofs.handler import ErofsHandler

    return ErofsHandler()


def _require_root() -> None:
    if sys.platform != "linux":
        raise SkipPlugin(f"EROFS is a filesystem of Linux, this is {sys.platform}; run the daemon on Linux")
    if os.geteuid() != 0:
        raise SkipPlugin("only root can mount; run the daemon as root")


PLUGIN = Plugin(SNAPSHOTTER, id="erofs", init=init, config=Config)
DIFFER_PLUGIN = Plugin(DIFFER, id="erofs", init=init_differ)
HANDLER_PLUGIN = Plugin(MOUNT_HANDLER, id="erofs", init=init_handler)
