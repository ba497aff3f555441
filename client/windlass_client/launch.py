"""From an image and a user's wishes to a created container, and back to nothing (docs/containerd 6.8)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from windlass.contracts.mounts import Mount
from windlass.contracts.values import Platform, check_identifier
from windlass.errors import AlreadyExists, Error, FailedPrecondition, NotFound
from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
from windlass_api.containerd.types.mount_pb2 import Mount as MountMessage
from windlass_api.containerd.v1.types import task_pb2
from windlass_client import security, spec, users
from windlass_client.client import Client
from windlass_client.containers import SPEC, to_any
from windlass_client.namespaces import RUNTIME, SNAPSHOTTER
from windlass_client.store import ClientStore
from windlass_images import platforms
from windlass_images.imagetree import resolve
from windlass_images.manifests import ImageConfig
from windlass_images.unpack import held, unpack

KILL_TIMEOUT = 10.0
STOP_SIGNAL = "io.containerd.image.config.stop-signal"
HOST_NAME_LIMIT = 63
EXIT_STATUS = "windlass.client/exit-status"
"""Label of a container whose task has ended and was deleted."""


@dataclass(frozen=True)
class Wishes:
    """What a container is to be like; what is left empty is as the image says."""

    image: str
    id: str
    arguments: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    entrypoint: str | None = None
    user: str = ""
    cwd: str = ""
    hostname: str = ""
    memory: int = 0
    cpus: float = 0
    pids: int = 0
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security: tuple[str, ...] = ()
    net_host: bool = False
    read_only: bool = False
    terminal: bool = False
    runtime: str = ""
    snapshotter: str = ""
    platform: Platform = field(default_factory=platforms.host)


@dataclass(frozen=True)
class Launched:
    """A container that was created, and what to give to its task as root filesystem."""

    container: Container
    rootfs: tuple[MountMessage, ...]


def _ignore(verb: str, what: str, done: int, total: int) -> None:
    """Show no progress."""


async def create(client: Client, wishes: Wishes, progress: Callable[[str, str, int, int], None] = _ignore) -> Launched:
    """Create a container with a writable snapshot over its image; when that fails, neither is left."""
    check_identifier("container", wishes.id)
    leaf, snapshotter, runtime = await asyncio.gather(
        resolve(ClientStore(client), wishes.image, wishes.platform),
        client.namespaces.default(SNAPSHOTTER, wishes.snapshotter),
        client.namespaces.default(RUNTIME, wishes.runtime),
    )
    async with client.lease(label="run") as leased:
        store, parent = ClientStore(leased), leaf.image.chain_id
        if parent and not await held(store, snapshotter, parent):
            await unpack(store, snapshotter, leaf, progress)
        try:
            mounts = await leased.snapshots.prepare(snapshotter, wishes.id, parent)
        except AlreadyExists:
            await _refuse_taken(client, wishes.id)
            raise
        try:
            document = await _spec(leased, wishes, leaf.image, mounts)
            container = Container(
                id=wishes.id,
                image=wishes.image,
                labels=_labels(leaf.image, wishes),
                runtime=Container.Runtime(name=runtime),
                spec=to_any(SPEC, document),
                snapshotter=snapshotter,
                snapshot_key=wishes.id,
            )
            return Launched(await leased.containers.create(container), tuple(mounts))
        except AlreadyExists:
            await asyncio.shield(_remove_snapshot(client, snapshotter, wishes.id))
            raise
        except BaseException:
            await asyncio.shield(_withdraw(leased, snapshotter, wishes.id))
            raise


async def _refuse_taken(client: Client, id: str) -> None:
    """Raise AlreadyExists that speaks of the container, if there is one: its snapshot has the same name."""
    with contextlib.suppress(NotFound):
        await client.containers.get(id)
        raise AlreadyExists(f"container {id} already exists; choose another name, or remove it with `windlass rm {id}`")


async def _withdraw(leased: Client, snapshotter: str, id: str) -> None:
    """Remove a snapshot, and before it the container that the daemon may have recorded after all.

    A deadline that passes, or an interrupt, leaves the outcome open: on a slow disk the record may still be
    on its way. A change of our own lease is made after those that were begun before it, so then it can be told.
    When not even that succeeds the snapshot stays for as long as the container is there.
    """
    try:
        await leased.leases.add(leased.connection.lease, f"snapshots/{snapshotter}", id)
        with contextlib.suppress(NotFound):
            found = await leased.containers.get(id)
            if (found.snapshotter, found.snapshot_key) == (snapshotter, id):
                await leased.containers.delete(id)
        await _remove_snapshot(leased, snapshotter, id)
    except Error:
        pass  # the first failure is what the caller has to know


def _labels(image: ImageConfig, wishes: Wishes) -> dict[str, str]:
    stop = {STOP_SIGNAL: image.stop_signal} if image.stop_signal else {}
    return {**spec.image_labels(image), **stop, **wishes.labels}


async def _spec(client: Client, wishes: Wishes, image: ImageConfig, mounts: Sequence[MountMessage]) -> spec.Spec:
    document = spec.default(client.namespace, wishes.id)
    spec.apply_image(document, image, wishes.arguments, wishes.entrypoint)
    process = document["process"]
    user = wishes.user or image.user
    accounts = users.Accounts()
    if not users.is_numeric(user):
        async with client.mounts.active(mounts) as plain:
            accounts = await asyncio.to_thread(users.read_accounts, [_mount(mount) for mount in plain])
    found = users.parse(user, accounts)
    spec.set_user(document, found.uid, found.gid, found.additional)
    if wishes.terminal:
        spec.set_terminal(document)
    process["env"] = spec.merge_env(process["env"], wishes.env)
    if wishes.cwd:
        spec.set_cwd(document, wishes.cwd)
    if wishes.net_host:
        spec.use_host_network(document)
    document["mounts"] += map(spec.parse_mount, wishes.mounts)
    document["hostname"] = wishes.hostname or wishes.id[:HOST_NAME_LIMIT]
    document["root"]["readonly"] = wishes.read_only
    if wishes.memory:
        spec.set_memory(document, wishes.memory)
    if wishes.cpus:
        spec.set_cpus(document, wishes.cpus)
    if wishes.pids not in (0, -1):
        spec.set_pids(document, wishes.pids)
    security.restrict(document, wishes.cap_add, wishes.cap_drop, wishes.security)
    return document


def _mount(message: MountMessage) -> Mount:
    return Mount(message.type, message.source, tuple(message.options), message.target)


async def remove(client: Client, id: str, force: bool = False) -> None:
    """Delete a container with its stopped task and its snapshot; ``force`` kills what still runs. Raises NotFound."""
    container = await client.containers.get(id)
    await remove_task(client, id, force)
    await client.containers.delete(id)
    if container.snapshot_key:
        await _remove_snapshot(client, container.snapshotter, container.snapshot_key)


async def remove_task(client: Client, id: str, force: bool = False) -> None:
    """Delete a container's task; none is not an error, one that runs only with ``force`` none either."""
    try:
        process = await client.tasks.get(id)
    except NotFound:
        return
    stopped = (task_pb2.STOPPED, task_pb2.UNKNOWN)
    if process.status not in stopped and not (process.status == task_pb2.CREATED and not process.pid):
        if not force:
            state = task_pb2.Status.Name(process.status).lower()
            raise FailedPrecondition(f"container {id} is {state}; remove it with --force, which kills it")
        await kill(client, id)
    try:
        await client.tasks.delete(id)
    except NotFound:
        pass


async def kill(client: Client, id: str) -> None:
    """Kill every process of a task and wait for the end of the first."""
    waiting = asyncio.ensure_future(client.tasks.wait(id))
    try:
        try:
            await client.tasks.kill(id, signal.SIGKILL, all=True)
        except (NotFound, FailedPrecondition):
            pass  # it was quicker
        await asyncio.wait([waiting], timeout=KILL_TIMEOUT)
    finally:
        waiting.cancel()


async def _remove_snapshot(client: Client, snapshotter: str, key: str) -> None:
    try:
        await client.snapshots.remove(snapshotter, key)
    except NotFound:
        pass


async def undo(client: Client, id: str) -> None:
    """Remove what there is of a container after a failure; a second failure must not hide the first."""
    try:
        await remove(client, id, force=True)
    except Error:
        pass
