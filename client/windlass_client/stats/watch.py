"""Takes samples of containers, once or again and again; a daemon that restarts meanwhile is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from windlass.errors import Error, Unavailable
from windlass_api.containerd.v1.types import task_pb2
from windlass_client import lookup
from windlass_client.stats.reading import Reading, decode
from windlass_client.stats.rows import Named, row

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client

INTERVAL = 1.0
PATIENCE = 20.0
"""How long a daemon that has gone may take to come back."""
RUNNING = (task_pb2.RUNNING, task_pb2.PAUSED, task_pb2.PAUSING)
Rows = list[dict[str, object]]


class Watch:
    """The containers that a `stats` shows, and their last samples."""

    def __init__(self, client: Client, words: Sequence[str], everything: bool, truncate: bool) -> None:
        """Show the named containers, or all: with ``everything`` those that do not run, too."""
        self._client = client
        self._words = words
        self._everything = everything
        self._truncate = truncate
        self._last: dict[str, Reading] = {}
        self._fixed: list[Named] = []

    async def rows(self) -> AsyncIterator[Rows]:
        """Yield the rows again and again. Raises NotFound for a name, Unavailable if the daemon does not come back."""
        self._fixed = [_named(await lookup.container(self._client, word)) for word in self._words]
        loop = asyncio.get_running_loop()
        gone, found = 0.0, Rows()
        while True:
            try:
                found, gone = await self._take(), 0.0
            except Unavailable:
                gone = gone or loop.time()
                if loop.time() - gone > PATIENCE:
                    raise
            yield found
            await asyncio.sleep(INTERVAL)

    async def once(self) -> Rows:
        """Return the rows after two samples, as rates need."""
        number = 0
        async for found in self.rows():
            number += 1
            if number == 2 or not found:
                return found
        raise AssertionError("rows go on for ever")

    async def _take(self) -> Rows:
        tasks = {each.id or each.container_id: each for each in await self._client.tasks.list()}
        shown = self._fixed or await self._all()
        if not self._everything and not self._words:
            shown = [each for each in shown if each.id in tasks and tasks[each.id].status in RUNNING]
        samples = await asyncio.gather(
            *(self._sample(each.id, tasks[each.id].pid if each.id in tasks else 0) for each in shown)
        )
        found = []
        for container, sample in zip(shown, samples, strict=True):
            running = container.id in tasks and tasks[container.id].status in RUNNING
            before = self._last.get(container.id)
            found.append(row(container, *((before, sample) if running else (Reading(), Reading(1))), self._truncate))
            if sample is not None:
                self._last[container.id] = sample
        return found

    async def _all(self) -> list[Named]:
        return [_named(each) for each in await self._client.containers.list()]

    async def _sample(self, id: str, pid: int) -> Reading | None:
        if not pid:
            return None
        try:
            metrics = await self._client.tasks.metrics(f"id=={id}")
        except Unavailable:
            raise
        except Error:
            return None  # its shim cannot say: the container ends, or a controller is missing
        return next((decode(each, pid) for each in metrics if each.id == id), None)


def _named(container: Container) -> Named:
    return Named(container.id, lookup.name_of(container))
