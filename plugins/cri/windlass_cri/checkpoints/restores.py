"""Pods made from checkpoints. An archive says how processes go on, and nothing else: the rest the client says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from windlass.contracts.diff import LAYER
from windlass.contracts.values import Descriptor
from windlass.errors import Error, InvalidArgument, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.checkpoints import files as files
from windlass_cri.checkpoints.checkpoints import CONTAINERS, POD, VERSION, Checkpoints
from windlass_cri.containers.containers import Containers
from windlass_cri.ids import new_id
from windlass_cri.pods.pods import Pods
from windlass_cri.record import Pod
from windlass_local.waiting import settled

MOST_CONTAINERS = 1000
DIFF = "rootfs-diff.tar"


class Restores:
    """Makes pods, and containers in them that go on where a checkpoint left them."""

    def __init__(
        self,
        containers: Containers,
        pods: Pods,
        checkpoints: Checkpoints,
        remove: Callable[[Pod], Awaitable[None]],
    ) -> None:
        """Have ``remove`` take away a pod that did not come back."""
        self._containers = containers
        self._pods = pods
        self._checkpoints = checkpoints
        self._remove = remove

    async def pod(self, request: cri.RestorePodRequest) -> cri.RestorePodResponse:
        """Restore a pod: all of its containers, or nothing.

        Raises InvalidArgument for an archive that this node has not written, Unknown where criu is not.
        """
        if not request.config.HasField("metadata"):
            raise Unknown("sandbox config must include metadata")
        await self._checkpoints.check_criu()
        async with self._checkpoints.scratch() as directory:
            names = await asyncio.to_thread(self._unpack, request.checkpoint_path, directory)
            configs = matched(names, request.container_configs)
            id = await self._pods.run(request.config, request.runtime_handler)
            pod = self._pods.index.get(id)
            try:
                restored = [
                    await self._container(pod, config, directory / CONTAINERS / str(number))
                    for number, config in enumerate(configs)
                ]
            except BaseException:
                await settled(self._remove(pod))
                raise
        return cri.RestorePodResponse(pod_sandbox_id=id, restored_containers=restored)

    def _unpack(self, location: str, directory: Path) -> list[str]:
        """Unpack an archive and return the names of its containers."""
        files.unpack(location, directory)
        files.check_seal(directory, self._checkpoints.key())
        return names_of(directory)

    async def _container(self, pod: Pod, config: cri.ContainerConfig, directory: Path) -> cri.RestoredContainer:
        name = config.metadata.name
        try:
            id = await self._containers.create(pod, config)
            container = self._containers.index.get(id)
            await self._apply(id, directory / DIFF)
            await self._containers.start(container, str(directory / "checkpoint"))
        except Error as error:
            raise Unknown(f'container "{name}" of the checkpoint cannot be restored: {error}') from error
        return cri.RestoredContainer(name=name, container_id=id)

    async def _apply(self, id: str, layer: Path) -> None:
        """Give a container's snapshot the files that the checkpoint has."""
        namespace = self._containers.namespace
        row = await namespace.containers.get(id)
        async with namespace.lease("cri-restore") as store:
            size = (await asyncio.to_thread(layer.stat)).st_size
            digest = await store.content.write(f"cri-restore-{new_id()}", _blocks(layer), size)
            mounts = await store.snapshots.mounts(row.snapshotter, row.snapshot_key)
            async with store.mountable(mounts) as mountable:
                await store.apply(Descriptor(LAYER, digest, size), mountable)


async def _blocks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, files.BLOCK):
            yield data


def names_of(directory: Path) -> list[str]:
    """Return the names of a checkpoint's containers. Raises InvalidArgument for one that is damaged."""
    try:
        document = json.loads((directory / POD).read_bytes())
        version, names = document["version"], document["containers"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(f"the checkpoint is damaged: {POD}: {error}") from error
    if version != VERSION:
        raise InvalidArgument(f"the checkpoint is of version {str(version)[:20]}; this daemon reads {VERSION}")
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names) or len(names) > MOST_CONTAINERS:
        raise InvalidArgument(f"the checkpoint is damaged: containers of {POD} are not names")
    for number in range(len(names)):
        for wanted in ("checkpoint", DIFF):
            if not (directory / CONTAINERS / str(number) / wanted).exists():
                raise InvalidArgument(f"the checkpoint is damaged: it has no {wanted} of container {number}")
    return names


def matched(names: Sequence[str], configs: Sequence[cri.ContainerConfig]) -> list[cri.ContainerConfig]:
    """Return the client's configuration of each container. Raises InvalidArgument when they do not fit."""
    known: Mapping[str, cri.ContainerConfig] = {each.metadata.name: each for each in configs}
    if len(known) != len(configs) or sorted(names) != sorted(known):
        raise InvalidArgument(
            f"container_configs are of {sorted(known)}, and the checkpoint has {sorted(names)}; "
            "each container needs its own"
        )
    return [known[each] for each in names]
