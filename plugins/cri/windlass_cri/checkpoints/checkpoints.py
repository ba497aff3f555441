"""Checkpoints of containers and pods, which run on (docs/containerd 5.4)."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from windlass.contracts.diff import LAYER, CompareOptions
from windlass.contracts.mounts import Mount
from windlass.contracts.tasks import Status, Tasks
from windlass.contracts.values import Descriptor, Payload
from windlass.errors import DeadlineExceeded, Error, Unimplemented, Unknown
from windlass.gate import offloaded
from windlass_api.containerd.runc.v1.options_pb2 import CheckpointOptions
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.checkpoints import criu
from windlass_cri.checkpoints import files as files
from windlass_cri.config import RuntimeConfig
from windlass_cri.containers.containers import Containers
from windlass_cri.containers.info import plain
from windlass_cri.images.images import Images
from windlass_cri.record import NAMESPACE, Container, Pod
from windlass_cri.views import container_status
from windlass_local.inside import LocalNamespace
from windlass_local.waiting import settled, unless_gone
from windlass_oci.payloads import spec_of

logger = logging.getLogger(__name__)

OPTIONS = "containerd.runc.v1.CheckpointOptions"
VERSION = 1
POD, CONTAINERS = "pod.dump", "containers"


class Checkpoints:
    """Writes checkpoints as archives."""

    def __init__(self, containers: Containers, images: Images, tasks: Tasks, config: RuntimeConfig, root: Path) -> None:
        """Work below ``root``; `recover` takes care of what an earlier daemon has left there."""
        self._containers = containers
        self._images = images
        self._tasks = tasks
        self._config = config
        self._root = root
        self._jobs: set[asyncio.Task[None]] = set()

    async def container(self, container: Container, location: str, timeout: float) -> None:
        """Write a checkpoint of a container that runs. Raises Unknown, InvalidArgument, DeadlineExceeded."""
        await self.check_criu()
        place = files.check_place(location)
        _require_running(container)
        await self._within(self._container(container, place), timeout)

    async def pod(self, pod: Pod, chosen: Sequence[Container], location: str) -> None:
        """Write a checkpoint of a pod and of its containers that run, or of those ``chosen``; all rest meanwhile."""
        await self.check_criu()
        place = files.check_place(location)
        found = list(chosen) or [
            each for each in self._containers.of_pod(pod.id) if each.status.state == cri.CONTAINER_RUNNING
        ]
        for each in found:
            _require_running(each)
        if not found:
            raise Unknown(f"pod {pod.id} has no container that runs, and nothing to checkpoint")
        await self._within(self._pod(pod, found, place), 0)

    async def check_criu(self) -> None:
        """Raise Unknown where containers can be neither checkpointed nor restored."""
        await asyncio.to_thread(criu.check, self._config.enable_criu)

    async def stop(self) -> None:
        """Wait for checkpoints under way, so that no container stays frozen."""
        if self._jobs:
            await asyncio.wait(self._jobs)

    async def _within(self, work: Coroutine[object, object, None], timeout: float) -> None:
        """Do ``work`` to its end, for which the client waits ``timeout`` seconds, 0 for as long as it takes."""
        job = asyncio.create_task(_logged(work))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        try:
            async with asyncio.timeout(timeout or None):
                await asyncio.shield(job)
        except TimeoutError:
            raise DeadlineExceeded(f"the checkpoint took longer than {timeout:g} s; it ends by itself") from None

    async def _container(self, container: Container, location: Path) -> None:
        async with self.scratch() as directory:
            async with self._frozen(container):
                await self._dump(container, directory)
            await asyncio.to_thread(files.pack, directory, location)

    async def _pod(self, pod: Pod, containers: Sequence[Container], location: Path) -> None:
        async with self.scratch() as directory:
            inner = directory / CONTAINERS
            await asyncio.to_thread(inner.mkdir)
            async with AsyncExitStack() as stack:
                for each in containers:
                    await stack.enter_async_context(self._frozen(each))
                for number, each in enumerate(containers):
                    place = inner / str(number)
                    await asyncio.to_thread(place.mkdir)
                    await self._dump(each, place)
            names = [each.config.metadata.name for each in containers]
            document = {"version": VERSION, "config": plain(pod.config), "containers": names}
            await asyncio.to_thread(files.write_json, directory / POD, document)
            await asyncio.to_thread(self._seal, directory)
            await asyncio.to_thread(files.pack, directory, location)

    def _seal(self, directory: Path) -> None:
        files.seal(directory, self.key())

    def key(self) -> bytes:
        """Return the key of this node's seals. Blocks."""
        return files.key(self._root / "checkpoint.key")

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """Make a directory that only root may enter, and that is gone afterwards."""
        directory = self._root / "checkpoints" / secrets.token_hex(8)
        try:
            await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True)
            yield directory
        except OSError as error:
            raise Unknown(f"checkpoint: {error}") from error
        finally:
            await settled(asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True))

    async def recover(self) -> None:
        """Thaw the containers that a daemon has left frozen which was killed meanwhile; what it had begun goes."""
        if not await asyncio.to_thread(self._sweep):
            return
        for process in await self._tasks.list(NAMESPACE):
            if process.status is Status.PAUSED and process.container_id in self._containers.index:
                logger.warning("container %s was left frozen by a checkpoint; it goes on", process.container_id)
                await unless_gone(self._tasks.resume(NAMESPACE, process.container_id))

    def _sweep(self) -> bool:
        """Remove what an earlier daemon had begun; return whether there was anything."""
        left = self._root / "checkpoints"
        found = left.is_dir() and any(left.iterdir())
        shutil.rmtree(left, ignore_errors=True)
        return found

    @asynccontextmanager
    async def _frozen(self, container: Container) -> AsyncIterator[None]:
        """Freeze a container, so that its files are as its memory."""
        await self._tasks.pause(NAMESPACE, container.id)
        try:
            yield
        finally:
            await settled(unless_gone(self._tasks.resume(NAMESPACE, container.id)))

    async def _dump(self, container: Container, directory: Path) -> None:
        """Write all that a checkpoint of a frozen container has."""
        namespace = self._containers.namespace
        row = await namespace.containers.get(container.id)
        options = CheckpointOptions(
            work_path=str(directory),
            terminal=container.config.tty,
            open_tcp=True,
            external_unix_sockets=True,
            file_locks=True,
        )
        payload = Payload(OPTIONS, options.SerializeToString())
        try:
            await self._tasks.checkpoint(NAMESPACE, container.id, str(directory / "checkpoint"), payload)
        except Error as error:
            raise Unknown(f'checkpointing container "{container.id}" failed: {error}') from error
        await self._files_of(namespace, container.id, row.snapshotter, directory)
        image = self._images.get(container.data.image_id)
        status = container_status(container, image)
        now = datetime.now(UTC).isoformat()
        config = {
            "id": container.id,
            "name": container.data.name,
            "rootfsImage": status.image.image,
            "rootfsImageRef": status.image_ref,
            "rootfsImageName": status.image.image,
            "runtime": row.runtime,
            "createdTime": datetime.fromtimestamp(container.status.created_at / 1e9, UTC).isoformat(),
            "checkpointedTime": now,
            "restoredTime": "0001-01-01T00:00:00Z",
            "restored": False,
        }
        documents = {"config.dump": config, "status.dump": plain(status), "spec.dump": spec_of(row)}
        await asyncio.to_thread(_documents, container, documents, directory)

    async def _files_of(self, namespace: LocalNamespace, id: str, snapshotter: str, directory: Path) -> None:
        """Write what a container has changed of its image's files."""
        async with namespace.lease("cri-checkpoint") as store:
            parent = (await store.snapshots.stat(snapshotter, id)).parent
            view = f"{id}-checkpoint-{time.time_ns()}"
            upper = await store.snapshots.mounts(snapshotter, id)
            lower = await store.snapshots.view(snapshotter, view, parent)
            try:
                async with store.mountable(lower) as below, store.mountable(upper) as above:
                    layer = await _compared(store, below, above, f"cri-checkpoint-{view}")
            finally:
                await settled(unless_gone(store.snapshots.remove(snapshotter, view)))
            await asyncio.to_thread(_save, store, layer, directory / "rootfs-diff.tar")


def _require_running(container: Container) -> None:
    if container.status.state != cri.CONTAINER_RUNNING:
        state = cri.ContainerState.Name(container.status.state)
        raise Unknown(
            f'container "{container.id}" is in {state} state. only CONTAINER_RUNNING containers can be checkpointed'
        )


async def _compared(store: LocalNamespace, lower: Sequence[Mount], upper: Sequence[Mount], ref: str) -> Descriptor:
    """Return the layer that makes ``upper`` of ``lower``, by the first differ that makes layers."""
    for differ in store.parts.differs.values():
        try:
            compare = offloaded(differ.compare, deadline=None)
            return await settled(compare(store.content.view, lower, upper, CompareOptions(LAYER, ref=ref)))
        except Unimplemented:
            continue
    raise Unknown("no differ of this daemon makes layers")


def _save(store: LocalNamespace, layer: Descriptor, path: Path) -> None:
    reader = store.content.view.reader(layer)
    try:
        with path.open("xb") as out:
            for offset in range(0, layer.size, files.BLOCK):
                out.write(reader.read_at(offset, min(files.BLOCK, layer.size - offset)))
    finally:
        reader.close()


def _documents(container: Container, documents: Mapping[str, object], directory: Path) -> None:
    for name, document in documents.items():
        files.write_json(directory / name, document)
    files.copy_plain(container.directory / "status", directory / "status")
    log = Path(container.data.log) if container.data.log else None
    if log is not None and log.exists():
        files.copy_plain(log, directory / "container.log")


async def _logged(work: Coroutine[object, object, None]) -> None:
    try:
        await work
    except Error as error:
        # The client that waits gets the error too; one that has gone does not.
        logger.info("a checkpoint failed: %s", error)
        raise
