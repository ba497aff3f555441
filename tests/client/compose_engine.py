"""A daemon for compose that is a few dictionaries: containers run until a test ends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from windlass.errors import AlreadyExists, FailedPrecondition, NotFound
from windlass.typing import override
from windlass_client.compose.engine import Engine, Line, Member, Wanted
from windlass_client.compose.identity import PROJECT
from windlass_client.compose.model import Network, Volume


class MemoryEngine(Engine):
    """Keeps everything in memory, and what was done in ``done``."""

    def __init__(self, *images: str) -> None:
        self.images = {name: f"sha256:{name}" for name in images}
        self.registry: dict[str, str] = {}
        self.kept: dict[str, Member] = {}
        self.wanted: dict[str, Wanted] = {}
        self.shared: dict[str, dict[str, Mapping[str, str]]] = {"network": {}, "volume": {}}
        self.done: list[str] = []
        self.on_start: dict[str, Member] = {}
        """What becomes of a container of a service when it starts, after a moment."""
        self.written: dict[str, list[Line]] = {}
        self._changed = asyncio.Event()
        self._count = 0

    def set(self, id: str, **fields: object) -> None:
        self.kept[id] = replace(self.kept[id], **fields)  # type: ignore[arg-type]  # the test knows the fields
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def named(self, name: str) -> Member:
        return next(each for each in self.kept.values() if each.name == name)

    @override
    async def members(self, project: str) -> Sequence[Member]:
        await asyncio.sleep(0)
        return [each for each in self.kept.values() if each.labels[PROJECT] == project]

    @override
    async def digest(self, image: str, platform: str) -> str:
        return self.images.get(image, "")

    @override
    async def pull(self, image: str, platform: str) -> None:
        if image not in self.registry:
            raise NotFound(f"image {image} is in no registry")
        self.images[image] = self.registry[image]
        self.done.append(f"pull {image}")

    @override
    async def networks(self, project: str) -> Sequence[str]:
        return self._shared("network", project)

    @override
    async def has_network(self, name: str) -> bool:
        return name in self.shared["network"]

    @override
    async def create_network(self, network: Network, labels: Mapping[str, str]) -> None:
        self.shared["network"][network.name] = labels

    @override
    async def remove_network(self, name: str) -> None:
        for each in self.kept.values():
            if name in self.wanted[each.id].networks:
                raise FailedPrecondition(f"network {name} is in use by {each.name}")
        del self.shared["network"][name]

    @override
    async def volumes(self, project: str) -> Sequence[str]:
        return self._shared("volume", project)

    @override
    async def has_volume(self, name: str) -> bool:
        return name in self.shared["volume"]

    @override
    async def create_volume(self, volume: Volume, labels: Mapping[str, str]) -> None:
        self.shared["volume"][volume.name] = labels

    @override
    async def remove_volume(self, name: str) -> None:
        del self.shared["volume"][name]

    def _shared(self, kind: str, project: str) -> list[str]:
        return [name for name, labels in self.shared[kind].items() if labels[PROJECT] == project]

    @override
    async def create(self, wanted: Wanted) -> str:
        if any(each.name == wanted.name for each in self.kept.values()):
            raise AlreadyExists(f"container {wanted.name} exists")
        self._count += 1
        id = f"c{self._count}"
        self.wanted[id] = wanted
        self.kept[id] = Member(id, wanted.name, wanted.labels, "created")
        self.done.append(f"create {wanted.name}")
        return id

    @override
    async def start(self, id: str) -> None:
        member = self.kept[id]
        self.done.append(f"start {member.name}")
        self.set(id, state="running", health="starting" if self.wanted[id].service.health else "")
        if later := self.on_start.get(member.service):
            asyncio.get_running_loop().call_later(
                0.01, lambda: self.set(id, state=later.state, health=later.health, exit_code=later.exit_code)
            )

    @override
    async def stop(self, id: str, timeout: float | None) -> None:
        self.done.append(f"stop {self.kept[id].name}")
        self.set(id, state="exited", exit_code=143)

    @override
    async def kill(self, id: str, signal: str) -> None:
        self.done.append(f"kill {self.kept[id].name}")
        self.set(id, state="exited", exit_code=137)

    @override
    async def remove(self, id: str, volumes: bool = False) -> None:
        self.done.append(f"remove {self.kept.pop(id).name}")

    @override
    async def wait(self, id: str) -> int:
        while self.kept[id].runs:
            await self._changed.wait()
        return self.kept[id].exit_code

    @override
    async def logs(
        self, id: str, follow: bool = False, tail: int | None = None, since: str = "", until: str = ""
    ) -> AsyncIterator[Line]:
        shown = 0
        while True:
            member = self.kept[id]
            lines = self.written.get(member.name, [])
            for line in lines[shown:]:
                yield line
            shown = len(lines)
            if not follow or not member.runs:
                return
            await self._changed.wait()

    def write(self, name: str, text: str) -> None:
        self.written.setdefault(name, []).append(Line("T", "stdout", text))
        self._change()
