"""Removes containers that do not run, and with `system prune` all that nothing needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windlass.errors import Error
from windlass_client import asking
from windlass_client.asking import Filters
from windlass_client.datadir import DataDirectory
from windlass_client.lifecycle import removal, states
from windlass_client.system.usage import LIVE, written

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client


async def containers(client: Client, wanted: Filters) -> tuple[list[str], int]:
    """Remove the containers that do not run and that match; return their IDs, and the bytes that they had written."""
    tasks = {each.id or each.container_id: each for each in await client.tasks.list()}
    data = DataDirectory.of(client.connection)
    gone, freed = [], 0
    for container in await client.containers.list():
        if states.of(container, tasks.get(container.id), data).word in LIVE or not _fits(container, wanted):
            continue
        size = await written(client, container)
        try:
            await removal.remove(client, container)
        except Error:
            continue  # it was started, or removed, meanwhile
        gone.append(container.id)
        freed += size
    return gone, freed


def _fits(container: Container, wanted: Filters) -> bool:
    created = container.created_at.seconds
    return all(created <= asking.moment(text).timestamp() for text in wanted.get("until", ())) and asking.labelled(
        container.labels, wanted.get("label", ()), wanted.get("label!", ())
    )


async def networks(client: Client) -> list[str]:
    """Remove the networks that no container has, and return their names."""
    from windlass_client.datadir import host_networks
    from windlass_client.networks import prune, settings, views
    from windlass_client.networks.members import Registry

    catalog = settings.catalog()
    found, _ = views.all_views(catalog)
    return await prune.prune(client, catalog, Registry(host_networks() / "attached"), found)
