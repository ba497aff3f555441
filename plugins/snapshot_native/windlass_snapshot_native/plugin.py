"""Registers the native snapshotter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from windlass.contracts.snapshots import SNAPSHOTTER
from windlass.contracts.values import host_architecture
from windlass.plugin import InitContext, Plugin
from windlass.records import dataclass

if TYPE_CHECKING:
    from windlass_snapshot_native.snapshotter import NativeSnapshotter


@dataclass(frozen=True)
class Config:
    """Configuration of the native snapshotter."""

    root_path: str = ""
    """Where snapshots and their database are kept; empty for the plugin's own directory."""


def init(context: InitContext) -> NativeSnapshotter:
    """Open the snapshots below the root."""
    from windlass_snapshot_native.snapshotter import NativeSnapshotter

    config = context.config(Config)
    root = Path(config.root_path) if config.root_path else context.root
    context.meta.exports["root"] = str(root)
    context.meta.platforms.append(("linux", host_architecture(), ""))
    snapshotter = NativeSnapshotter(root)
    context.on_stop(snapshotter.close)
    return snapshotter


PLUGIN = Plugin(SNAPSHOTTER, id="native", init=init, config=Config)
