"""Removes containers with all that the client keeps for them. As a program: after the end of one with `--rm`."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from typing import TYPE_CHECKING

from windlass.contracts.containers import Container as Record
from windlass.errors import Error, FailedPrecondition, NotFound, Unavailable
from windlass_client.client import Client
from windlass_client.datadir import DataDirectory
from windlass_client.lifecycle import restarts
from windlass_client.namespace import ClientNamespace, from_message
from windlass_client.networks.cleanup import release
from windlass_local import launch
from windlass_oci.payloads import spec_of

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container

PATIENCE = 60.0
"""Seconds that a daemon has to come back before a container with `--rm` is left."""
PAUSE = 0.3


async def remove(client: Client, container: Container, force: bool = False, volumes: bool = False) -> None:
    """Remove a container, its task and snapshot, its log, and with ``volumes`` its anonymous volumes.

    Raises FailedPrecondition if it runs, unless ``force`` kills it.
    """
    if force and restarts.STATUS in container.labels:
        # The monitor could start it again in between.
        await client.containers.label(container.id, restarts.stopped())
    await launch.remove(ClientNamespace(client), container.id, force)
    if volumes:
        await remove_volumes(client, from_message(container))
    await tidy(client, container.id)


async def remove_ended(client: Client, id: str) -> None:
    """Remove a container with `--rm` that has ended; another client may have been quicker."""
    with contextlib.suppress(NotFound):
        await remove(client, await client.containers.get(id), force=True, volumes=True)


async def remove_volumes(client: Client, container: Record) -> None:
    """Remove the volumes without a name of a container that is gone, unless another container has them."""
    from windlass_client.volumes.removal import remove_anonymous
    from windlass_client.volumes.usage import mounts_of
    from windlass_client.volumes.volume import Volumes

    held = Volumes(DataDirectory.of(client.connection))
    await remove_anonymous(client, held, mounts_of(spec_of(container), held.directory))


async def tidy(client: Client, id: str) -> None:
    """Remove the files of a container that is gone."""
    await release(client, id)
    await asyncio.to_thread(shutil.rmtree, DataDirectory.of(client.connection).container(id), True)


async def after_end(address: str, namespace: str, id: str) -> None:
    """Remove a container whose first process has ended; the daemon may be restarting."""
    async with Client(address, namespace) as client:
        until = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                container = await client.containers.get(id)
                await remove(client, container, volumes=True)
                return
            except NotFound:
                return
            except (FailedPrecondition, Unavailable):
                # The daemon learns of the end a moment after the log's program.
                if asyncio.get_running_loop().time() > until:
                    raise
            await asyncio.sleep(PAUSE)


if __name__ == "__main__":
    try:
        asyncio.run(after_end(*sys.argv[1:4]))
    except Error:
        sys.exit(1)
