"""Removes volumes that no container uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from windlass.errors import FailedPrecondition, NotFound
from windlass_client.volumes import usage
from windlass_client.volumes.volume import Volume, Volumes

if TYPE_CHECKING:
    from windlass_client.client import Client

SHOWN = 3


@asynccontextmanager
async def held(volumes: Volumes) -> AsyncIterator[None]:
    """Keep other clients from making, reserving and removing volumes; the event loop goes on meanwhile."""
    lock = volumes.locked("volumes")
    await asyncio.to_thread(lock.__enter__)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


async def remove(client: Client, volumes: Volumes, name: str) -> None:
    """Remove a volume. Raises NotFound, FailedPrecondition while a container uses it."""
    async with held(volumes):
        volumes.get(name)
        # Asked under the lock: a container that is recorded later has reserved its volumes before.
        holders = usage.holders(volumes, name, usage.users(await client.containers.list(), volumes.directory))
        if holders:
            shown = ", ".join(holders[:SHOWN]) + (" …" if len(holders) > SHOWN else "")
            raise FailedPrecondition(f"volume {name} is in use by container {shown}; remove that first")
        await asyncio.to_thread(volumes.remove, name)


@dataclass(frozen=True)
class Pruned:
    """What a prune has removed."""

    names: Sequence[str]
    freed: int


async def prune(client: Client, volumes: Volumes, wanted: Callable[[Volume], bool]) -> Pruned:
    """Remove the volumes that no container uses and that are ``wanted``."""
    names, freed = [], 0
    async with held(volumes):
        await asyncio.to_thread(volumes.sweep)
        used = usage.users(await client.containers.list(), volumes.directory)
        for each in volumes.list():
            if wanted(each) and not usage.holders(volumes, each.name, used):
                freed += await asyncio.to_thread(size, each)
                await asyncio.to_thread(volumes.remove, each.name)
                names.append(each.name)
    return Pruned(names, freed)


def size(volume: Volume) -> int:
    """Return the bytes that a volume takes on disk."""
    from windlass_storage import trees

    try:
        return trees.measure(volume.path).size
    except (OSError, FailedPrecondition):
        return 0  # a file that goes away meanwhile, or a tree that cannot be measured


async def remove_anonymous(client: Client, volumes: Volumes, mounts: Sequence[usage.Attached]) -> None:
    """Remove those volumes of a removed container that have no name of their own; what is in use stays."""
    for each in mounts:
        try:
            if each.kind == "volume" and volumes.get(each.name).anonymous:
                await remove(client, volumes, each.name)
        except (NotFound, FailedPrecondition):
            pass  # shared by --volumes-from, or gone already
