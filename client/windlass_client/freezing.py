"""`pause` and `unpause`: all processes of a container stand still, and go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from windlass.errors import Error, FailedPrecondition
from windlass_api.containerd.v1.types import task_pb2
from windlass_client import lookup
from windlass_client.live import status_of

if TYPE_CHECKING:
    from windlass_client.client import Client


async def change(client: Client, word: str, freeze: bool) -> None:
    """Freeze a container, or let it go on. Raises NotFound, FailedPrecondition for one in another state."""
    container = await lookup.container(client, word)
    status = await status_of(client, container.id)
    wanted = task_pb2.RUNNING if freeze else task_pb2.PAUSED
    if status != wanted:
        state = "already paused" if freeze and status == task_pb2.PAUSED else "not paused" if not freeze else ""
        raise FailedPrecondition(f"container {word} is {state or 'not running'}")
    await (client.tasks.pause(container.id) if freeze else client.tasks.resume(container.id))


@asynccontextmanager
async def frozen(client: Client, id: str, wanted: bool = True) -> AsyncIterator[None]:
    """Keep a container that runs from changing its files as long as this lasts, if that is wanted."""
    if not wanted or await status_of(client, id) != task_pb2.RUNNING:
        yield
        return
    await client.tasks.pause(id)
    try:
        yield
    finally:
        try:
            await client.tasks.resume(id)
        except Error:
            pass  # it was killed meanwhile
