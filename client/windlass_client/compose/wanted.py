"""What a container of a service is made from, with names as the daemon's namespace has them."""

from __future__ import annotations

from dataclasses import replace

from windlass.errors import FailedPrecondition
from windlass_client.compose import identity
from windlass_client.compose.engine import Engine, Wanted
from windlass_client.compose.images import image_of
from windlass_client.compose.model import Project, Service
from windlass_client.compose.shared import volumes_of


async def want(
    engine: Engine, project: Project, service: Service, number: int, digest: str, one_off: str = ""
) -> Wanted:
    """Return what a service's container of a number is to be; ``one_off`` is the name of one that has no number.

    Raises FailedPrecondition if it is to share the network of a service that has no container.
    """
    name = one_off or identity.container_name(project, service, number)
    labels = identity.container_labels(project, service, number, digest, bool(one_off))
    own = () if one_off else (service.name,)
    return Wanted(
        name,
        replace(service, image=image_of(project, service)),
        labels,
        {
            project.networks[key].name: tuple(dict.fromkeys((*own, *each.aliases)))
            for key, each in service.networks.items()
        },
        {key: project.volumes[key].name for key in volumes_of(service)},
        await _shared(engine, project, service),
        addresses={project.networks[key].name: each.ipv4 for key, each in service.networks.items() if each.ipv4},
    )


def sharing(service: Service) -> str:
    """Return the service whose network a service shares, empty if there is none."""
    kind, _, other = service.network_mode.partition(":")
    return other if kind == "service" else ""


async def _shared(engine: Engine, project: Project, service: Service) -> str:
    """Return the container whose network a service shares, empty if there is none."""
    kind, _, other = service.network_mode.partition(":")
    if kind == "container":
        return other
    if kind != "service":
        return ""
    members = [each for each in await engine.members(project.name) if each.service == other and not each.one_off]
    if not members:
        raise FailedPrecondition(f'service "{service.name}" shares the network of {other}, which has no container')
    return members[0].id
