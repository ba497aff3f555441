"""Stops a project and takes it down: containers in the reverse of their start order, then what they share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from windlass_client.compose.engine import Engine, Member
from windlass_client.compose.model import Project, Service
from windlass_client.compose.parallel import in_order, together
from windlass_client.compose.shared import Report


def orphans(members: Sequence[Member], project: Project) -> list[Member]:
    """Return the containers of services that the files no longer have."""
    known = {*project.services, *project.disabled}
    return [each for each in members if each.service not in known and not each.one_off]


async def stop(
    engine: Engine, members: Sequence[Member], services: Mapping[str, Service], timeout: float | None, report: Report
) -> None:
    """Stop containers that run; a service is stopped once those that need it are."""

    async def stop_one(member: Member) -> None:
        await engine.stop(member.id, timeout)
        report("Container", member.name, "Stopped")

    async def step(name: str) -> None:
        await together(stop_one(each) for each in members if each.service == name and each.runs)

    await together(stop_one(each) for each in members if each.service not in services and each.runs)
    await in_order(services, step, backwards=True)


async def take_down(
    engine: Engine,
    members: Sequence[Member],
    services: Mapping[str, Service],
    timeout: float | None,
    volumes: bool,
    report: Report,
) -> None:
    """Stop and remove containers."""
    await stop(engine, members, services, timeout, report)
    await remove(engine, members, volumes, report)


async def remove(engine: Engine, members: Collection[Member], volumes: bool, report: Report) -> None:
    """Remove containers, killing what still runs."""

    async def remove_one(member: Member) -> None:
        await engine.remove(member.id, volumes)
        report("Container", member.name, "Removed")

    await together(remove_one(each) for each in members)
