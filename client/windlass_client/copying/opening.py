"""Finds the files of a container, whether it runs or not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from windlass.contracts.mounts import Mount
from windlass.errors import FailedPrecondition
from windlass_client import lookup
from windlass_client.copying import tree
from windlass_client.copying.tree import Tree
from windlass_client.live import live_pid
from windlass_client.namespace import ClientNamespace
from windlass_client.volumes import usage
from windlass_oci.payloads import read_spec
from windlass_remote.messages import from_mounts

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client
    from windlass_client.datadir import DataDirectory


async def tree_of(client: Client, data: DataDirectory, word: str) -> Tree:
    """Return the root of a container with its volumes. Raises NotFound."""
    container = await lookup.container(client, word)
    name = f"{word}:"
    pid = await live_pid(client, container.id)
    if not pid:
        return await _at_rest(client, data, container, name)
    found = await asyncio.to_thread(tree.of_process, pid, name)
    # The number may have been another process's by the time that its root was opened.
    if await live_pid(client, container.id) != pid:
        found.__exit__(None, None, None)
        raise FailedPrecondition(f"container {word} has stopped or started meanwhile; try again")
    return found


async def _at_rest(client: Client, data: DataDirectory, container: Container, name: str) -> Tree:
    if not container.snapshot_key:
        raise FailedPrecondition(f"container {container.id} has no snapshot: its files are not the daemon's")
    spec = read_spec(container.id, container.spec.value)
    volumes = [
        Mount("bind", each.source, each.options, each.destination)
        for each in usage.mounts_of(spec, data.volumes)
        if each.kind != "tmpfs"
    ]
    async with ClientNamespace(client).lease("files") as leased:
        mounts = from_mounts(await client.snapshots.mounts(container.snapshotter, container.snapshot_key))
        async with leased.mountable(mounts) as plain:
            return await asyncio.to_thread(tree.of_mounts, plain, volumes, name)
