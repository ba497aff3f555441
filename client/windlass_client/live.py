"""Whether a container has a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windlass.errors import NotFound
from windlass_api.containerd.v1.types import task_pb2

if TYPE_CHECKING:
    from windlass_client.client import Client

LIVE = (task_pb2.CREATED, task_pb2.RUNNING, task_pb2.PAUSED, task_pb2.PAUSING)


async def status_of(client: Client, id: str) -> task_pb2.Status.ValueType:
    """Return the state of a container's task, UNKNOWN if it has none."""
    try:
        return (await client.tasks.get(id)).status
    except NotFound:
        return task_pb2.UNKNOWN


async def live_pid(client: Client, id: str) -> int:
    """Return the first process of a container that has one, 0 if it has none."""
    try:
        process = await client.tasks.get(id)
    except NotFound:
        return 0
    return process.pid if process.status in LIVE else 0
