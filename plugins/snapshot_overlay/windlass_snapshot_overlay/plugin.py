"""Registers the overlayfs snapshotter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from windlass.contracts.snapshots import SNAPSHOTTER
from windlass.contracts.values import host_architecture
from windlass.plugin import InitContext, Plugin
from windlass.records import dataclass

if TYPE_CHECKING:
    from windlass_snapshot_overlay.snapshotter import OverlaySnapshotter


@dataclass(frozen=True)
class Config:
    """Configuration of the overlayfs snapshotter."""

    root_path: str = ""
    """Where snapshots and their database are kept; empty for the plugin's own directory."""
    upperdir_label: bool = False
    """Show the path of the upper directory as label `containerd.io/snapshot/overlay.upperdir`."""
    sync_remove: bool = False
    """Delete files when a snapshot is removed; otherwise garbage collection does it afterwards."""
    slow_chown: bool = False
    """Let clients change the owner of every file where mounts cannot be mapped."""
    mount_options: tuple[str, ...] = ()
    """Added to every overlay mount."""


def init(context: InitContext) -> OverlaySnapshotter:
    """Find out what overlayfs can do below the root, and open the snapshots there; skips where it can do nothing."""
    from windlass_snapshot_overlay.probe import probe
    from windlass_snapshot_overlay.snapshotter import OverlaySnapshotter

    config = context.config(Config)
    root = Path(config.root_path) if config.root_path else context.root
    features = probe(root)
    context.meta.exports["root"] = str(root)
    context.meta.platforms.append(("linux", host_architecture(), ""))
    if features.remap_ids:
        context.meta.capabilities.append("remap-ids")
    if not config.slow_chown:
        context.meta.capabilities.append("only-remap-ids")
    if not features.user_namespace:
        context.meta.capabilities.append("rebase")
    snapshotter = OverlaySnapshotter(
        root,
        features,
        mount_options=config.mount_options,
        sync_remove=config.sync_remove,
        upperdir_label=config.upperdir_label,
    )
    context.on_stop(snapshotter.close)
    return snapshotter


PLUGIN = Plugin(SNAPSHOTTER, id="overlayfs", init=init, config=Config)
