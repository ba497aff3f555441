"""Registers the snapshotter `copy`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from windlass.contracts.snapshots import SNAPSHOTTER
from windlass.plugin import InitContext, Plugin, SkipPlugin

if TYPE_CHECKING:
    from snapshot_copy.snapshotter import CopySnapshotter


@dataclass(frozen=True)
class Config:
    minimum_free: int = 0
    """Skip the plugin when the disk has fewer free bytes than this at start."""


def init(context: InitContext) -> CopySnapshotter:
    import shutil

    from snapshot_copy.snapshotter import CopySnapshotter

    context.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if shutil.disk_usage(context.root).free < context.config(Config).minimum_free:
        raise SkipPlugin(f"{context.root} has little space left; free some, or lower minimum_free")
    context.meta.exports["root"] = str(context.root)
    snapshotter = CopySnapshotter(context.root)
    context.on_stop(snapshotter.close)
    return snapshotter


PLUGIN = Plugin(SNAPSHOTTER, id="copy", init=init, config=Config)
