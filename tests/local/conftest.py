"""One daemon's stores and runtime in memory, and its namespace as plugins and as clients see it."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from client.conftest import ArchiveFiles, address, client
from google.protobuf.descriptor import ServiceDescriptor
from metadata.conftest import World, make_world, world

from windlass.contracts.activations import ActivateOptions, Activation, MountManager
from windlass.contracts.containers import Container
from windlass.contracts.content import ContentStore
from windlass.contracts.diff import Differ
from windlass.contracts.gc import Collector
from windlass.contracts.metadata import Collected, Metadata
from windlass.contracts.mounts import Mount
from windlass.contracts.tasks import CreateOptions, Exit, Process, Status, Tasks
from windlass.contracts.values import Descriptor, Payload, Platform
from windlass.errors import FailedPrecondition, NotFound
from windlass_api.containerd.services.containers.v1 import containers_pb2
from windlass_api.containerd.services.content.v1 import content_pb2
from windlass_api.containerd.services.diff.v1 import diff_pb2
from windlass_api.containerd.services.images.v1 import images_pb2
from windlass_api.containerd.services.leases.v1 import leases_pb2
from windlass_api.containerd.services.mounts.v1 import mounts_pb2
from windlass_api.containerd.services.namespaces.v1 import namespaces_pb2
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2
from windlass_api.containerd.services.tasks.v1 import tasks_pb2
from windlass_client.client import Client
from windlass_client.namespace import ClientNamespace
from windlass_images.importer import Options, load
from windlass_local.inside import LocalNamespace, Running
from windlass_local.namespace import Namespace
from windlass_local.store import Parts
from windlass_services.containers import Containers as ContainersService
from windlass_services.content import Content as ContentService
from windlass_services.diff import Diff as DiffService
from windlass_services.images import Images as ImagesService
from windlass_services.leases import Leases as LeasesService
from windlass_services.mounts import Mounts as MountsService
from windlass_services.namespaces import Namespaces as NamespacesService
from windlass_services.snapshots import Snapshots as SnapshotsService
from windlass_services.tasks import TasksService

__all__ = ["address", "client", "make_world", "world"]

PLATFORM = Platform("linux", "amd64")
IMAGE = "example.org/x:1"


class PaperTasks(Tasks):
    """Tasks that exist on paper; SIGKILL ends them with status 137."""

    def __init__(self) -> None:
        self.processes: dict[str, Process] = {}

    async def get(self, namespace: str, id: str, exec_id: str = "") -> Process:
        if id not in self.processes:
            raise NotFound(f"task {id} does not exist")
        return self.processes[id]

    async def create(self, namespace: str, container: Container, options: CreateOptions) -> int:
        self.processes[container.id] = Process(container.id, pid=7, status=Status.CREATED, io=options.io)
        return 7

    async def start(self, namespace: str, id: str, exec_id: str = "") -> int:
        self.processes[id] = replace(await self.get(namespace, id), status=Status.RUNNING)
        return 7

    async def kill(self, namespace: str, id: str, exec_id: str, signal: int, all: bool = False) -> None:
        process = await self.get(namespace, id)
        self.processes[id] = replace(process, status=Status.STOPPED, exit_status=128 + signal, exited_at=5)

    async def wait(self, namespace: str, id: str, exec_id: str = "") -> Exit:
        process = await self.get(namespace, id)
        return Exit(process.pid, process.exit_status, process.exited_at)

    async def delete(self, namespace: str, id: str) -> Exit:
        process = await self.get(namespace, id)
        if process.status == Status.RUNNING:
            raise FailedPrecondition(f"task {id} is running")
        del self.processes[id]
        return Exit(process.pid, process.exit_status, process.exited_at)


class Gunzip(Differ):
    """Applies gzipped layers onto nothing."""

    def apply(
        self,
        content: ContentStore,
        desc: Descriptor,
        mounts: Sequence[Mount],
        payloads: Mapping[str, Payload] | None = None,
        sync_fs: bool = False,
    ) -> Descriptor:
        reader = content.reader(desc)
        plain = gzip.decompress(reader.read_at(0, reader.size))
        reader.close()
        return Descriptor("application/vnd.oci.image.layer.v1.tar", digest_of(plain), len(plain))


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Manager(MountManager):
    """Makes overlays elsewhere, and says where."""

    active: set[str] = field(default_factory=set)
    leases: list[str] = field(default_factory=list)
    before: Callable[[], object] = lambda: None
    """Called in the thread that activates."""

    def handles(self, mounts: Sequence[Mount]) -> bool:
        return any("/" in mount.type for mount in mounts)

    def activate(
        self, namespace: str, name: str, mounts: Sequence[Mount], options: ActivateOptions | None = None
    ) -> Activation:
        self.before()
        self.active.add(name)
        self.leases.append(options.lease if options else "")
        return Activation(name, system=(Mount("bind", "/made", ("rbind",)),))

    def deactivate(self, namespace: str, name: str) -> None:
        self.active.remove(name)


@dataclass
class Collecting(Collector):
    metadata: Metadata

    async def collect(self) -> Collected:
        return self.metadata.collect()


@dataclass
class Daemon:
    """What the namespaces of both kinds are of."""

    world: World
    metadata: Metadata
    tasks: PaperTasks = field(default_factory=PaperTasks)
    mounts: Manager = field(default_factory=Manager)
    differ: Gunzip = field(default_factory=Gunzip)

    def services(self) -> list[tuple[ServiceDescriptor, object]]:
        collector = Collecting(self.metadata)
        found: list[tuple[object, str, object]] = [
            (containers_pb2, "Containers", ContainersService(self.metadata)),
            (content_pb2, "Content", ContentService(self.metadata)),
            (diff_pb2, "Diff", DiffService(self.metadata, {"gunzip": self.differ}, ["gunzip"], False)),
            (images_pb2, "Images", ImagesService(self.metadata, collector)),
            (leases_pb2, "Leases", LeasesService(self.metadata, collector)),
            (mounts_pb2, "Mounts", MountsService(self.mounts)),
            (namespaces_pb2, "Namespaces", NamespacesService(self.metadata)),
            (snapshots_pb2, "Snapshots", SnapshotsService(self.metadata)),
            (tasks_pb2, "Tasks", TasksService(self.tasks, self.metadata)),
        ]
        return [(module.DESCRIPTOR.services_by_name[name], service) for module, name, service in found]  # type: ignore[attr-defined] # generated modules have it

    def inside(self, name: str) -> Namespace:
        """Return a namespace as plugins see it."""
        parts = Parts(self.metadata, Collecting(self.metadata), {"gunzip": self.differ}, {"memory": frozenset()})
        return LocalNamespace(parts, Running(self.tasks, self.mounts), name)


@pytest.fixture
def daemon(world: World) -> Daemon:
    return Daemon(world, world.open())


@pytest.fixture(params=["inside", "through the API"])
def namespace(request: pytest.FixtureRequest, daemon: Daemon, client: Client) -> Namespace:
    """The namespace ``tests``, as plugins see it, and as clients do."""
    return daemon.inside("tests") if request.param == "inside" else ClientNamespace(client)


@pytest.fixture
async def image(namespace: Namespace, tmp_path: Path) -> str:
    """An image of one layer in the namespace."""
    await load(namespace, ArchiveFiles().save(tmp_path / "a.tar"), Options(platform=PLATFORM, snapshotter="memory"))
    return IMAGE
