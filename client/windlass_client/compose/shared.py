"""The networks and volumes of a project: made when its services need them, removed when it goes."""

from __future__ import annotations

from collections.abc import Callable, Collection

from windlass.errors import NotFound
from windlass_client.compose import identity
from windlass_client.compose.engine import Engine
from windlass_client.compose.model import Project, Service

Report = Callable[[str, str, str], None]
"""Says what was done: the kind of an object, its name, and what became of it."""


async def ensure(engine: Engine, project: Project, services: Collection[Service], report: Report) -> None:
    """Make the networks and volumes of services that are not there. Raises NotFound for those that others make."""
    for key in dict.fromkeys(name for each in services for name in each.networks):
        network = project.networks[key]
        if await engine.has_network(network.name):
            continue
        if network.external:
            raise NotFound(
                f'network "{network.name}" is external and does not exist; `windlass network create {network.name}` '
                "makes it"
            )
        await engine.create_network(network, identity.network_labels(project.name, network))
        report("Network", network.name, "Created")
    for key in dict.fromkeys(name for each in services for name in volumes_of(each)):
        volume = project.volumes[key]
        if await engine.has_volume(volume.name):
            continue
        if volume.external:
            raise NotFound(
                f'volume "{volume.name}" is external and does not exist; `windlass volume create {volume.name}` '
                "makes it"
            )
        await engine.create_volume(volume, identity.volume_labels(project.name, volume))
        report("Volume", volume.name, "Created")


def volumes_of(service: Service) -> list[str]:
    """Return what a service calls the volumes that it mounts."""
    return [each.source for each in service.mounts if each.kind == "volume" and each.source]


async def remove(engine: Engine, project: str, volumes: bool, report: Report) -> None:
    """Remove the networks of a project, and its volumes if they are to go. Raises FailedPrecondition."""
    for name in await engine.networks(project):
        await engine.remove_network(name)
        report("Network", name, "Removed")
    for name in await engine.volumes(project) if volumes else ():
        await engine.remove_volume(name)
        report("Volume", name, "Removed")
