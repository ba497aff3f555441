"""Registers the services."""

from __future__ import annotations

from collections.abc import Callable

from windlass.contracts.activations import MOUNT_MANAGER
from windlass.contracts.checkpoints import CHECKPOINTS
from windlass.contracts.diff import DIFFER
from windlass.contracts.events import EXCHANGE
from windlass.contracts.gc import GC
from windlass.contracts.metadata import METADATA
from windlass.contracts.sandboxes import SANDBOX_CONTROLLER
from windlass.contracts.services import GRPC, TTRPC, Service, TtrpcService
from windlass.contracts.streaming import STREAMS
from windlass.contracts.tasks import RUNTIME
from windlass.contracts.transfer import TRANSFER as TRANSFER_TYPE
from windlass.plugin import InitContext, Plugin, PluginType
from windlass.records import dataclass


@dataclass(frozen=True)
class DiffConfig:
    """Configuration of ``io.containerd.grpc.v1.diff``."""

    default: tuple[str, ...] = ("walking",)
    """IDs of the differs to ask, in order; the next is asked when one does not know the media type."""
    sync_fs: bool = False
    """Write a layer's files to disk before Apply returns, also when the client did not ask for it."""


def _plugin(
    id: str,
    module: str,
    name: str,
    make: Callable[[InitContext], object],
    requires: tuple[PluginType[object], ...] = (),
    config: type[object] | None = None,
    early: bool = False,
) -> Plugin[Service]:
    def init(context: InitContext) -> Service:
        from windlass_services.service import GrpcService

        return GrpcService(f"{module}_pb2", name, make(context))

    return Plugin(GRPC, id=id, init=init, requires=requires, config=config, early=early)


def _containers(context: InitContext) -> object:
    from windlass_services.containers import Containers

    return Containers(context.single(METADATA))


def _content(context: InitContext) -> object:
    from windlass_services.content import Content

    return Content(context.single(METADATA))


def _diff(context: InitContext) -> object:
    from windlass_services.diff import Diff

    config = context.config(DiffConfig)
    differs = {id: context.by_id(DIFFER, id) for id in config.default}
    return Diff(context.single(METADATA), differs, config.default, config.sync_fs)


def _events(context: InitContext) -> object:
    from windlass_services.events import Events

    return Events(context.single(EXCHANGE))


def _ttrpc_events(context: InitContext) -> TtrpcService:
    from windlass_services.events import TtrpcEvents

    return TtrpcEvents(context.single(EXCHANGE))


def _health(context: InitContext) -> object:
    from windlass_services.health import Health

    def names() -> set[str]:
        return {each.name for each in context.all(GRPC).values()}

    return Health(names)


def _images(context: InitContext) -> object:
    from windlass_services.images import Images

    return Images(context.single(METADATA), context.single(GC))


def _introspection(context: InitContext) -> object:
    from windlass_services.introspection import Introspection

    return Introspection(context.records, context.root / "uuid", context.all(RUNTIME), context.gates)


def _leases(context: InitContext) -> object:
    from windlass_services.leases import Leases

    return Leases(context.single(METADATA), context.single(GC))


def _mounts(context: InitContext) -> object:
    from windlass_services.mounts import Mounts

    return Mounts(context.single(MOUNT_MANAGER))


def _namespaces(context: InitContext) -> object:
    from windlass_services.namespaces import Namespaces

    return Namespaces(context.single(METADATA))


def _sandboxes(context: InitContext) -> object:
    from windlass_services.sandboxes import SandboxStoreService

    return SandboxStoreService(context.single(METADATA))


def _sandbox_controllers(context: InitContext) -> object:
    from windlass_services.sandboxcontrollers import SandboxControllerService

    return SandboxControllerService(context.all(SANDBOX_CONTROLLER), context.single(METADATA), context.single(EXCHANGE))


def _snapshots(context: InitContext) -> object:
    from windlass_services.snapshots import Snapshots

    return Snapshots(context.single(METADATA))


def _tasks(context: InitContext) -> object:
    from windlass_services.tasks import TasksService

    checkpoints = next(iter(context.all(CHECKPOINTS).values()), None)
    return TasksService(context.single(RUNTIME), context.single(METADATA), checkpoints)


def _streaming(context: InitContext) -> object:
    from windlass_services.streaming import Streaming

    return Streaming(context.single(STREAMS))


def _transfer(context: InitContext) -> object:
    from windlass_services.transfer import Transfer

    return Transfer(list(context.all(TRANSFER_TYPE).values()), context.single(STREAMS))


def _version(context: InitContext) -> object:
    from windlass import __version__
    from windlass_services.version import Version

    return Version(__version__, "")


S = "containerd.services"
CONTAINERS = _plugin("containers", f"{S}.containers.v1.containers", "Containers", _containers, (METADATA,))
CONTENT = _plugin("content", f"{S}.content.v1.content", "Content", _content, (METADATA,))
DIFF = _plugin("diff", f"{S}.diff.v1.diff", "Diff", _diff, (METADATA, DIFFER), DiffConfig)
EVENTS = _plugin("events", f"{S}.events.v1.events", "Events", _events, (EXCHANGE,))
HEALTH = _plugin("healthcheck", "grpc.health.v1.health", "Health", _health)
IMAGES = _plugin("images", f"{S}.images.v1.images", "Images", _images, (METADATA, GC))
INTROSPECTION = _plugin(
    "introspection", f"{S}.introspection.v1.introspection", "Introspection", _introspection, (RUNTIME,)
)
LEASES = _plugin("leases", f"{S}.leases.v1.leases", "Leases", _leases, (METADATA, GC))
MOUNTS = _plugin("mounts", f"{S}.mounts.v1.mounts", "Mounts", _mounts, (MOUNT_MANAGER,))
NAMESPACES = _plugin("namespaces", f"{S}.namespaces.v1.namespaces", "Namespaces", _namespaces, (METADATA,))
SANDBOX_CONTROLLERS = _plugin(
    "sandbox-controllers",
    f"{S}.sandbox.v1.sandbox",
    "Controller",
    _sandbox_controllers,
    (SANDBOX_CONTROLLER, METADATA, EXCHANGE),
)
SANDBOXES = _plugin("sandboxes", f"{S}.sandbox.v1.sandbox", "Store", _sandboxes, (METADATA,))
SNAPSHOTS = _plugin("snapshots", f"{S}.snapshots.v1.snapshots", "Snapshots", _snapshots, (METADATA,))
STREAMING = _plugin("streaming", f"{S}.streaming.v1.streaming", "Streaming", _streaming, (STREAMS,))
TASKS = _plugin("tasks", f"{S}.tasks.v1.tasks", "Tasks", _tasks, (RUNTIME, METADATA, CHECKPOINTS))
TRANSFER = _plugin("transfer", f"{S}.transfer.v1.transfer", "Transfer", _transfer, (TRANSFER_TYPE, STREAMS))
VERSION = _plugin("version", f"{S}.version.v1.version", "Version", _version, early=True)
TTRPC_EVENTS = Plugin(TTRPC, id="events", init=_ttrpc_events, requires=(EXCHANGE,))
