"""The images of services: there already, pulled, or built before."""

from __future__ import annotations

from collections.abc import Iterable

from windlass.errors import FailedPrecondition, NotFound
from windlass_client.compose.engine import Engine
from windlass_client.compose.model import Project, Service
from windlass_client.compose.parallel import together


def image_of(project: Project, service: Service) -> str:
    """Return the name of a service's image; one that is built without a name has the service's."""
    return service.image or f"{project.name}-{service.name}"


async def ensure(engine: Engine, project: Project, services: Iterable[Service], policy: str = "") -> dict[str, str]:
    """Return the digest of each service's image, which is pulled first if its policy, or ``policy``, says so.

    Raises NotFound, FailedPrecondition.
    """
    services = list(services)
    due: dict[tuple[str, str], Service] = {}
    for each in services:
        if await _is_due(engine, project, each, policy or each.pull_policy):
            due[image_of(project, each), each.platform] = each
    await together(engine.pull(image, platform) for image, platform in due)
    return {each.name: await engine.digest(image_of(project, each), each.platform) for each in services}


async def _is_due(engine: Engine, project: Project, service: Service, policy: str) -> bool:
    image = image_of(project, service)
    there = bool(await engine.digest(image, service.platform))
    if service.build is not None and not there:
        raise FailedPrecondition(
            f'service "{service.name}": image {image} is not built; '
            f"`windlass build -t {image} {service.build.context}` builds it"
        )
    if policy == "never" and not there:
        raise NotFound(f'service "{service.name}": image {image} does not exist, and its pull policy is never')
    if service.build is not None or policy == "never":
        return False
    return policy == "always" or not there


async def pull(engine: Engine, project: Project, services: Iterable[Service]) -> None:
    """Pull the images of services, but for those that are built."""
    wanted = {(image_of(project, each), each.platform) for each in services if each.build is None}
    await together(engine.pull(image, platform) for image, platform in sorted(wanted))
