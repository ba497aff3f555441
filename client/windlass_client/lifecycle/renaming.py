"""Gives containers other names."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from windlass.contracts.values import check_identifier
from windlass.errors import AlreadyExists, NotFound
from windlass_client import lookup
from windlass_client.datadir import DataDirectory, Place
from windlass_client.labels import NAME
from windlass_client.networks import connect

if TYPE_CHECKING:
    from windlass_client.client import Client


async def rename(client: Client, where: Place, word: str, name: str) -> None:
    """Call a container by another name. Raises AlreadyExists if another one has it, NotFound, InvalidArgument."""
    check_identifier("container", name)
    container = await lookup.container(client, word)
    with DataDirectory.of(where).claimed(name):
        try:
            other = await lookup.container(client, name)
        except NotFound:
            other = None
        if other is not None and lookup.name_of(other) == name:
            raise AlreadyExists(f"container {name} already exists; choose another name")
        await client.containers.label(container.id, {NAME: name})
        await asyncio.to_thread(connect.rename, DataDirectory.of(where).container(container.id), name)
