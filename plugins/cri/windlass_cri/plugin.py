"""Registers CRI: its configuration blocks, and its services."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from windlass.contracts.activations import MOUNT_MANAGER
from windlass.contracts.diff import DIFFER
from windlass.contracts.events import EXCHANGE
from windlass.contracts.gc import GC
from windlass.contracts.metadata import METADATA
from windlass.contracts.sandboxes import SANDBOX_CONTROLLER, SandboxController
from windlass.contracts.services import GRPC, Service
from windlass.contracts.snapshots import SNAPSHOTTER
from windlass.contracts.tasks import RUNTIME
from windlass.contracts.transfer import TRANSFER
from windlass.plugin import InitContext, Plugin, PluginType, SkipPlugin
from windlass_cri.config import ImagesConfig, RuntimeConfig, ServerConfig

if TYPE_CHECKING:
    from windlass_cri.podsandbox.controller import PauseContainers
    from windlass_cri.runtime import CriRuntime

IMAGES_BLOCK: PluginType[ImagesConfig] = PluginType("io.containerd.cri.v1")
RUNTIME_BLOCK: PluginType[RuntimeConfig] = PluginType("io.containerd.cri.v1")
"""The blocks that containerd has for the parts of CRI, of one type."""


def init_images(context: InitContext) -> ImagesConfig:
    """Return the block."""
    return context.config(ImagesConfig)


def init_runtime(context: InitContext) -> RuntimeConfig:
    """Return the block."""
    return context.config(RuntimeConfig)


# Any: a TOML table as parsed.
def migrate(version: int, plugins: dict[str, Any]) -> None:
    """Every step to 4: the single block of older files is three (docs/containerd 5.3)."""
    from windlass_cri.migration import migrate

    migrate(plugins)


def init(context: InitContext) -> Service:
    """Get ready to serve; pods of an earlier daemon are looked for once all plugins are there."""
    from windlass_cri.service import CriService

    runtime, images = context.by_id(RUNTIME_BLOCK, "runtime"), context.by_id(IMAGES_BLOCK, "images")
    snapshotters = [record for record in context.records() if record.type == SNAPSHOTTER.uri]
    roots = {record.id: record.meta.exports.get("root", "") for record in snapshotters}
    metadata, collector, differs = context.single(METADATA), context.single(GC), context.all(DIFFER)
    tasks, mounts = context.single(RUNTIME), context.single(MOUNT_MANAGER)
    exchange, transfer = context.single(EXCHANGE), context.single(TRANSFER)
    controllers, server, hooks = context.all(SANDBOX_CONTROLLER), context.config(ServerConfig), context.hooks

    def make() -> CriRuntime:
        from windlass_cri.runtime import Configs, CriRuntime
        from windlass_local.inside import Running
        from windlass_local.store import Parts

        return CriRuntime(
            Parts(metadata, collector, differs, _capabilities(context)),
            Running(tasks, mounts),
            exchange,
            transfer,
            controllers,
            Configs(runtime, images, server),
            roots,
            context.root,
            context.state,
            hooks,
        )

    service = CriService(make, metadata, context.root)
    context.on_start(service.start)
    context.on_stop(service.stop)
    return service


def _capabilities(context: InitContext) -> dict[str, frozenset[str]]:
    """Return what the snapshotters are able to do."""
    records = [record for record in context.records() if record.type == SNAPSHOTTER.uri]
    return {each.id: frozenset(each.meta.capabilities) for each in records if each.instance is not None}


def init_podsandbox(context: InitContext) -> SandboxController:
    """Get ready to run pause containers; those of an earlier daemon are found when they are asked for."""
    if sys.platform != "linux":
        raise SkipPlugin(f"namespaces are of Linux, this is {sys.platform}; run the daemon on Linux")
    if os.geteuid() != 0:
        raise SkipPlugin("only root can make these namespaces; run the daemon as root")
    from windlass_cri.podsandbox.late import LatePauseContainers

    runtime, images = context.by_id(RUNTIME_BLOCK, "runtime"), context.by_id(IMAGES_BLOCK, "images")
    tasks, mounts = context.single(RUNTIME), context.single(MOUNT_MANAGER)
    metadata, collector, differs = context.single(METADATA), context.single(GC), context.all(DIFFER)

    def make() -> PauseContainers:
        from windlass_cri.pods.handlers import Handlers
        from windlass_cri.podsandbox.controller import PauseContainers, Settings
        from windlass_local.inside import Running
        from windlass_local.store import Parts

        return PauseContainers(
            Parts(metadata, collector, differs, _capabilities(context)),
            Running(tasks, mounts),
            Handlers(runtime.containerd, tasks),
            Settings(runtime, images.pinned_images.get("sandbox", ""), images.snapshotter),
            context.root.with_name(PLUGIN.uri) / "sandboxes",  # where CRI makes the files of pods
        )

    controller = LatePauseContainers(make)
    context.on_stop(controller.close)
    return controller


IMAGES_PLUGIN = Plugin(IMAGES_BLOCK, id="images", init=init_images, config=ImagesConfig)
RUNTIME_PLUGIN = Plugin(RUNTIME_BLOCK, id="runtime", init=init_runtime, config=RuntimeConfig)
PLUGIN = Plugin(
    GRPC,
    id="cri",
    init=init,
    config=ServerConfig,
    migrate=migrate,
    requires=(
        RUNTIME_BLOCK,
        METADATA,
        GC,
        DIFFER,
        EXCHANGE,
        SNAPSHOTTER,
        RUNTIME,
        MOUNT_MANAGER,
        TRANSFER,
        SANDBOX_CONTROLLER,
    ),
    later=("windlass_cri.runtime",),
)
PODSANDBOX = Plugin(
    SANDBOX_CONTROLLER,
    id="podsandbox",
    init=init_podsandbox,
    requires=(RUNTIME_BLOCK, METADATA, GC, DIFFER, SNAPSHOTTER, RUNTIME, MOUNT_MANAGER),
    later=("windlass_cri.pods.handlers", "windlass_cri.podsandbox.controller"),
)
