"""The engine of compose on a daemon, by the client's own library: each method is a command of `windlass`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from windlass.errors import NotFound
from windlass.typing import override
from windlass_client import output, pulling
from windlass_client.client import Client
from windlass_client.compose.engine import CREATED, EXITED, PAUSED, RUNNING, Engine, Line, Member, Wanted
from windlass_client.compose.holding import HeldVolumes, Networks
from windlass_client.compose.identity import PROJECT
from windlass_client.compose.launching import launch_options
from windlass_client.compose.loglines import lines
from windlass_client.compose.model import Network, Volume
from windlass_client.datadir import DataDirectory
from windlass_client.lifecycle import creation, removal, starting, states, stopping
from windlass_client.lifecycle.waiting import exit_code
from windlass_client.listings.containers import Seen
from windlass_client.logs.reading import Log
from windlass_client.namespace import from_message
from windlass_client.shortnames import full
from windlass_images import platforms
from windlass_images.unpack import Progress

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_api.containerd.services.images.v1.images_pb2 import Image
    from windlass_api.containerd.v1.types.task_pb2 import Process
    from windlass_client.cli import Where
    from windlass_client.lifecycle.attaching import Attachment

STATES = {"running": RUNNING, "paused": PAUSED, "created": CREATED}
"""Words of containers' states; every other one is of a container that has ended."""


@asynccontextmanager
async def opened(where: Where, quiet: bool = False) -> AsyncIterator[ClientEngine]:
    """Yield the engine of a namespace."""
    async with where.client() as client:
        with output.progress(quiet) as show:
            yield ClientEngine(where, client, show)


class ClientEngine(Engine):
    """A namespace of a daemon, with networks and volumes of this host."""

    def __init__(self, where: Where, client: Client, progress: Progress) -> None:
        self._where = where
        self._data = DataDirectory.of(where)
        self._client = client
        self._progress = progress
        self._networks = Networks()
        self._volumes = HeldVolumes(client, where)

    @override
    async def members(self, project: str) -> Sequence[Member]:
        containers, tasks = await asyncio.gather(
            self._client.containers.list(f'labels."{PROJECT}"=={project}'), self._client.tasks.list()
        )
        # Task.id is a container's; some daemons leave container_id empty.
        by_id = {task.id or task.container_id: task for task in tasks}
        return [self._member(each, by_id.get(each.id)) for each in containers]

    def _member(self, container: Container, task: Process | None) -> Member:
        state = states.of(container, task, self._data)
        row = Seen(container, task, state).row(short=True)
        return Member(
            container.id,
            str(row["Names"]),
            dict(container.labels),
            STATES.get(state.word, EXITED),
            state.exit_code,
            state.health,
            str(row["Image"]),
            str(row["Command"]),
            str(row["RunningFor"]),
            str(row["Ports"]),
            str(row["Status"]),
        )

    @override
    async def digest(self, image: str, platform: str) -> str:
        found = await self._image(image)
        return found.target.digest if found else ""

    async def _image(self, name: str) -> Image | None:
        for each in dict.fromkeys((name, full(name))):
            with contextlib.suppress(NotFound):
                return await self._client.images.get(each)
        return None

    @override
    async def pull(self, image: str, platform: str) -> None:
        chosen = platforms.parse(platform) if platform else platforms.host()
        await pulling.pull(self._client, full(image), chosen, "", self._progress)

    @override
    async def networks(self, project: str) -> Sequence[str]:
        return await self._networks.of(project)

    @override
    async def has_network(self, name: str) -> bool:
        return await self._networks.has(name)

    @override
    async def create_network(self, network: Network, labels: Mapping[str, str]) -> None:
        await self._networks.create(network, labels)

    @override
    async def remove_network(self, name: str) -> None:
        await self._networks.remove(name)

    @override
    async def volumes(self, project: str) -> Sequence[str]:
        return await self._volumes.of(project)

    @override
    async def has_volume(self, name: str) -> bool:
        return await self._volumes.has(name)

    @override
    async def create_volume(self, volume: Volume, labels: Mapping[str, str]) -> None:
        await self._volumes.create(volume, labels)

    @override
    async def remove_volume(self, name: str) -> None:
        await self._volumes.remove(name)

    @override
    async def create(self, wanted: Wanted) -> str:
        options = launch_options(self._where, wanted)
        return (await creation.create(self._client, options, "never", self._progress)).container.id

    @override
    async def start(self, id: str) -> None:
        await starting.start(self._client, from_message(await self._client.containers.get(id)))

    async def start_attached(self, id: str, how: Attachment) -> int | None:
        """Start a container and stay with it; return its exit code, None if the user has left it."""
        return await starting.start_attached(self._client, from_message(await self._client.containers.get(id)), how)

    @override
    async def stop(self, id: str, timeout: float | None) -> None:
        await stopping.stop(self._client, await self._client.containers.get(id), timeout)

    @override
    async def kill(self, id: str, signal: str) -> None:
        await stopping.kill(self._client, await self._client.containers.get(id), stopping.signal_number(signal))

    @override
    async def remove(self, id: str, volumes: bool = False) -> None:
        with contextlib.suppress(NotFound):  # another client was quicker
            await removal.remove(self._client, await self._client.containers.get(id), force=True, volumes=volumes)

    @override
    async def wait(self, id: str) -> int:
        return await exit_code(self._client, await self._client.containers.get(id))

    @override
    async def logs(self, id: str, follow: bool, tail: int | None, since: str, until: str) -> AsyncIterator[Line]:
        async for line in lines(Log(self._data.log(id)), follow, tail, since, until):
            yield line
