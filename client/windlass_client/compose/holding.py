"""Networks and volumes of projects, as the client keeps them on this host."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from windlass.errors import InvalidArgument, NotFound
from windlass_client.cli import Where
from windlass_client.client import Client
from windlass_client.compose.identity import is_of
from windlass_client.compose.model import Network, Volume
from windlass_client.datadir import DataDirectory, host_networks
from windlass_client.networks import create, settings, views
from windlass_client.networks.members import DEFAULT, Registry
from windlass_client.networks.remove import remove
from windlass_client.volumes import removal
from windlass_client.volumes.volume import Volumes

LOCAL = ("local", "")


class Networks:
    """The networks of this host."""

    def __init__(self) -> None:
        self._catalog = settings.catalog()

    async def of(self, project: str) -> Sequence[str]:
        """Return the names of a project's networks."""
        found, _ = await asyncio.to_thread(views.all_views, self._catalog)
        return [each.name for each in found if is_of(_texts(each), project)]

    async def has(self, name: str) -> bool:
        """Tell whether a network exists."""
        try:
            await asyncio.to_thread(self._catalog.get, name)
        except NotFound:
            return name == DEFAULT
        return True

    async def create(self, network: Network, labels: Mapping[str, str]) -> None:
        """Make a network. Raises as `create.create`."""
        wish = create.Wish(
            network.name,
            network.driver or "bridge",
            network.subnets,
            (network.gateway,) if network.gateway else (),
            internal=network.internal,
            ipv6=any(":" in each for each in network.subnets),
            options=network.options,
            labels=labels,
        )
        await asyncio.to_thread(create.create, self._catalog, wish)

    async def remove(self, name: str) -> None:
        """Remove a network. Raises as `remove.remove`."""
        registry = Registry(host_networks() / "attached")
        view = await asyncio.to_thread(views.view, self._catalog, name)
        await asyncio.to_thread(remove, self._catalog, registry, view)


def _texts(view: views.View) -> dict[str, str]:
    return {key: str(value) for key, value in view.mapping("labels").items()}


class HeldVolumes:
    """The volumes of a namespace."""

    def __init__(self, client: Client, where: Where) -> None:
        self._client = client
        self._volumes = Volumes(DataDirectory.of(where))

    async def of(self, project: str) -> Sequence[str]:
        """Return the names of a project's volumes."""
        return [each.name for each in await asyncio.to_thread(self._volumes.list) if is_of(each.labels, project)]

    async def has(self, name: str) -> bool:
        """Tell whether a volume exists."""
        try:
            await asyncio.to_thread(self._volumes.get, name)
        except NotFound:
            return False
        return True

    async def create(self, volume: Volume, labels: Mapping[str, str]) -> None:
        """Make a volume. Raises InvalidArgument for a driver, or options of one, that is not known."""
        if volume.driver not in LOCAL or volume.options:
            what = f"driver {volume.driver!r}" if volume.driver not in LOCAL else "driver_opts"
            raise InvalidArgument(
                f'volume "{volume.name}": {what} is not known; volumes are directories of this host, '
                "so bind a directory for another place"
            )
        async with removal.held(self._volumes):
            await asyncio.to_thread(self._volumes.create, volume.name, labels)

    async def remove(self, name: str) -> None:
        """Remove a volume. Raises FailedPrecondition while a container uses it."""
        await removal.remove(self._client, self._volumes, name)
