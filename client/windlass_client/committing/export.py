"""Writes the files of a container as tar, without its volumes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from windlass.errors import FailedPrecondition
from windlass_client.copying import tree
from windlass_client.copying.tree import Tree
from windlass_client.namespace import ClientNamespace
from windlass_linux import mounting
from windlass_remote.messages import from_mounts

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client


async def files_of(client: Client, container: Container) -> Tree:
    """Return the root of a container's own files, which may be in use: it cannot be written through this."""
    if not container.snapshot_key:
        raise FailedPrecondition(f"container {container.id} has no snapshot: its files are not the daemon's")
    async with ClientNamespace(client).lease("export") as leased:
        mounts = from_mounts(await client.snapshots.mounts(container.snapshotter, container.snapshot_key))
        async with leased.mountable(mounting.read_only(mounts)) as plain:
            return await asyncio.to_thread(tree.of_mounts, plain, (), f"{container.id}:")
