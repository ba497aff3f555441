"""Registers CRI: its configuration blocks, and its services."""

from __future__ import annotations

from windlass.contracts.activations import MOUNT_MANAGER
from windlass.contracts.diff import DIFFER
from windlass.contracts.events import EXCHANGE
from windlass.contracts.gc import GC
from windlass.contracts.metadata import METADATA
from windlass.contracts.sandboxes import SANDBOX_CONTROLLER
from windlass.contracts.services import GRPC, Service
from windlass.contracts.snapshots import SNAPSHOTTER
from windlass.contracts.tasks import RUNTIME
from windlass.contracts.transfer import TRANSFER
from windlass.plugin import InitContext, Plugin, PluginType
from windlass_cri.config import ImagesConfig, RuntimeConfig, ServerConfig

IMAGES_BLOCK: PluginType[ImagesConfig] = PluginType("io.containerd.cri.v1")
RUNTIME_BLOCK: PluginType[RuntimeConfig] = PluginType("io.containerd.cri.v1")
"""The blocks that containerd has for the parts of CRI, of one type."""


def init_images(context: InitContext) -> ImagesConfig:
    """Return the block."""
    return context.config(ImagesConfig)


def init_runtime(context: InitContext) -> RuntimeConfig:
    """Return the block."""
    return context.config(RuntimeConfig)


def init(context: InitContext) -> Service:
    """Get ready to serve; pods of an earlier daemon are looked for once all plugins are there."""
    from windlass_cri.runtime import Configs, CriRuntime
    from windlass_cri.service import CriService
    from windlass_local.inside import Running
    from windlass_local.store import Parts

    runtime, images = context.by_id(RUNTIME_BLOCK, "runtime"), context.by_id(IMAGES_BLOCK, "images")
    snapshotters = [record for record in context.records() if record.type == SNAPSHOTTER.uri]
    roots = {record.id: record.meta.exports.get("root", "") for record in snapshotters}
    capabilities = {
        record.id: frozenset(record.meta.capabilities) for record in snapshotters if record.instance is not None
    }
    parts = Parts(context.single(METADATA), context.single(GC), context.all(DIFFER), capabilities)
    made = CriRuntime(
        parts,
        Running(context.single(RUNTIME), context.single(MOUNT_MANAGER)),
        context.single(EXCHANGE),
        context.single(TRANSFER),
        context.all(SANDBOX_CONTROLLER),
        Configs(runtime, images, context.config(ServerConfig)),
        roots,
        context.root,
        context.state,
    )
    context.on_start(made.start)
    context.on_stop(made.stop)
    return CriService(made)


IMAGES_PLUGIN = Plugin(IMAGES_BLOCK, id="images", init=init_images, config=ImagesConfig)
RUNTIME_PLUGIN = Plugin(RUNTIME_BLOCK, id="runtime", init=init_runtime, config=RuntimeConfig)
PLUGIN = Plugin(
    GRPC,
    id="cri",
    init=init,
    config=ServerConfig,
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
)
