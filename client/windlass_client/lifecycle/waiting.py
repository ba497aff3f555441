"""Waits for the end of containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windlass.errors import NotFound
from windlass_client.datadir import DataDirectory
from windlass_client.lifecycle import states

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client


async def exit_code(client: Client, container: Container) -> int:
    """Return how a container ended, when it has; 0 for one that was never started, as docker has it."""
    try:
        return await client.tasks.wait(container.id)
    except NotFound:
        pass
    try:
        # It may have been deleted while we waited: then the record says how it ended.
        container = await client.containers.get(container.id)
    except NotFound:
        return 0
    return states.of(container, None, DataDirectory.of(client.connection)).exit_code
