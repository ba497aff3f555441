"""Registers the walking differ."""

from __future__ import annotations

import os
import sys

from windlass.contracts.activations import MOUNT_MANAGER
from windlass.contracts.diff import DIFFER, Differ, StreamProcessor
from windlass.contracts.values import host_architecture
from windlass.contracts.zygote import ZYGOTE
from windlass.plugin import InitContext, Plugin, SkipPlugin
from windlass.records import dataclass


@dataclass(frozen=True)
class Config:
    """Configuration of the plugin ``io.containerd.differ.v1.walking``."""

    stall_timeout: float = 60.0
    """Seconds that a worker may go without any progress before it is killed and the call fails."""


def init(context: InitContext) -> Differ:
    """Start the differ."""
    if sys.platform != "linux":
        raise SkipPlugin(f"mount namespaces do not exist on {sys.platform}; run the daemon on Linux")
    if os.geteuid() != 0:
        raise SkipPlugin("layers carry owners and devices, which only root can make; run the daemon as root")
    from windlass_diff.differ import WalkingDiffer

    zygote = context.single(ZYGOTE)
    zygote.preload(["windlass_diff.worker"])
    context.meta.platforms.append(("linux", host_architecture(), ""))
    mounts = next(iter(context.all(MOUNT_MANAGER).values()), None)
    patience = context.config(Config).stall_timeout
    differ = WalkingDiffer(
        zygote, context.state / "target", patience, mounts, context.section("stream_processors", StreamProcessor)
    )
    context.on_stop(differ.close)
    return differ


PLUGIN = Plugin(DIFFER, id="walking", init=init, config=Config, requires=(ZYGOTE, MOUNT_MANAGER))
