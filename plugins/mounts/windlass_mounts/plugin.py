"""Registers the mount manager."""

from __future__ import annotations

import os
import sys

from windlass.contracts.activations import MOUNT_HANDLER, MOUNT_MANAGER, MountManager
from windlass.contracts.metadata import METADATA
from windlass.plugin import InitContext, Plugin, SkipPlugin


def init(context: InitContext) -> MountManager:
    """Open the record of what is mounted; what has come loose of it is cleaned up in the background."""
    if sys.platform != "linux":
        raise SkipPlugin(f"mount(2) is of Linux, this is {sys.platform}; run the daemon on Linux")
    if os.geteuid() != 0:
        raise SkipPlugin("only root can mount; run the daemon as root")
    from windlass_mounts.loops import LoopHandler
    from windlass_mounts.manager import ActiveMounts
    from windlass_mounts.temporary import clear_mounts

    # <root>/tmpmounts (docs/containerd 1.2)
    clear_mounts(context.root.parent / "tmpmounts")

    handlers = {"loop": LoopHandler(), **context.all(MOUNT_HANDLER)}
    metadata = context.single(METADATA)
    manager = ActiveMounts(
        context.state,
        handlers,
        allowed_roots=(context.root.parent,),
        check_lease=lambda namespace, lease: metadata.leases(namespace).resources(lease),
    )
    context.on_stop(manager.close)
    context.meta.exports["targets"] = str(manager.targets)
    metadata.collect_from("mount", manager)
    manager.clean_in_background(context.register_readiness())
    return manager


PLUGIN = Plugin(MOUNT_MANAGER, id="bolt", init=init, requires=(METADATA, MOUNT_HANDLER))
