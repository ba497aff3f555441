"""`network prune`: removes networks that no container has, and collects what removed containers have left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from windlass.errors import FailedPrecondition
from windlass_client import labels
from windlass_client.client import Client
from windlass_client.datadir import DataDirectory
from windlass_client.networks import cleanup
from windlass_client.networks.catalog import Catalog
from windlass_client.networks.members import DEFAULT, Registry
from windlass_client.networks.remove import remove
from windlass_client.networks.views import View

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container


async def prune(client: Client, catalog: Catalog, registry: Registry, views: Sequence[View]) -> list[str]:
    """Remove the networks of ours among ``views`` that no container of the daemon names; return their names."""
    wanted = {DEFAULT}
    for namespace in await client.namespaces.list():
        async with Client(client.connection.address, namespace.name) as other:
            containers = await other.containers.list()
        wanted |= {name for each in containers for name in names_of(each)}
        if namespace.name == client.namespace:
            known = [each.id for each in containers]
            await asyncio.to_thread(cleanup.collect, DataDirectory.of(client.connection), known)
    return await asyncio.to_thread(_remove, catalog, registry, [each for each in views if each.name not in wanted])


def names_of(container: Container) -> list[str]:
    """Return the networks of a container by its record; another client may have written anything there."""
    try:
        return list(map(str, json.loads(container.labels.get(labels.NETWORKS, "{}"))))
    except (ValueError, TypeError):
        return []


def _remove(catalog: Catalog, registry: Registry, views: Sequence[View]) -> list[str]:
    gone = []
    for view in views:
        if view.found is not None and view.found.ours:
            with suppress(FailedPrecondition):  # a container of another daemon has it
                remove(catalog, registry, view)
                gone.append(view.name)
    return gone
