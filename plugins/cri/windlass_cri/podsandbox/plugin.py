"""Registers the sandbox controller `podsandbox`."""

from __future__ import annotations

import os
import sys

from windlass.contracts.activations import MOUNT_MANAGER
from windlass.contracts.diff import DIFFER
from windlass.contracts.gc import GC
from windlass.contracts.metadata import METADATA
from windlass.contracts.sandboxes import SANDBOX_CONTROLLER, SandboxController
from windlass.contracts.snapshots import SNAPSHOTTER
from windlass.contracts.tasks import RUNTIME
from windlass.plugin import InitContext, Plugin, SkipPlugin
from windlass_cri.plugin import IMAGES_BLOCK, PLUGIN, RUNTIME_BLOCK


def init(context: InitContext) -> SandboxController:
    """Get ready to run pause containers; those of an earlier daemon are found when they are asked for."""
    if sys.platform != "linux":
        raise SkipPlugin(f"namespaces are of Linux, this is {sys.platform}; run the daemon on Linux")
    if os.geteuid() != 0:
        raise SkipPlugin("only root can make these namespaces; run the daemon as root")
    from windlass_cri.handlers import Handlers
    from windlass_cri.podsandbox.controller import PauseContainers, Settings
    from windlass_local.inside import Running
    from windlass_local.store import Parts

    runtime, images = context.by_id(RUNTIME_BLOCK, "runtime"), context.by_id(IMAGES_BLOCK, "images")
    capabilities = {
        record.id: frozenset(record.meta.capabilities)
        for record in context.records()
        if record.type == SNAPSHOTTER.uri and record.instance is not None
    }
    tasks = context.single(RUNTIME)
    made = PauseContainers(
        Parts(context.single(METADATA), context.single(GC), context.all(DIFFER), capabilities),
        Running(tasks, context.single(MOUNT_MANAGER)),
        Handlers(runtime.containerd, tasks),
        Settings(runtime, images.pinned_images.get("sandbox", ""), images.snapshotter),
        context.root.with_name(PLUGIN.uri) / "sandboxes",
    )
    context.on_stop(made.close)
    return made


PODSANDBOX = Plugin(
    SANDBOX_CONTROLLER,
    id="podsandbox",
    init=init,
    requires=(RUNTIME_BLOCK, METADATA, GC, DIFFER, SNAPSHOTTER, RUNTIME, MOUNT_MANAGER),
)
