"""What `compose start`, `stop`, `restart`, `kill` and `rm` do."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import click

from windlass.errors import FailedPrecondition
from windlass_client.compose import down
from windlass_client.compose.adapter import opened
from windlass_client.compose.chosen import Chosen, report
from windlass_client.compose.engine import Engine, Member
from windlass_client.compose.model import Project
from windlass_client.compose.parallel import in_order, together
from windlass_client.compose.showing import of_services
from windlass_client.compose.waiting import wait_for


async def start(chosen: Chosen, names: Sequence[str]) -> None:
    """Start containers that do not run, in order. Raises FailedPrecondition if a service has none."""
    project = chosen.project_if_any(names)
    async with opened(chosen.where) as engine:
        members = of_services(await engine.members(project.name), names)
        for name in names:
            if not any(each.service == name for each in members):
                raise FailedPrecondition(f'service "{name}" has no container; `windlass compose up {name}` makes one')
        await _start(engine, project, members)


async def _start(engine: Engine, project: Project, members: Sequence[Member]) -> None:
    async def one(member: Member) -> None:
        if not member.runs and not member.one_off:
            await engine.start(member.id)
            report("Container", member.name, "Started")

    async def step(name: str) -> None:
        mine = [each for each in members if each.service == name]
        if any(not each.runs for each in mine):
            for other, dependency in project.services[name].depends_on.items():
                if other in here:
                    await wait_for(engine, project, name, other, dependency)
        await together(one(each) for each in mine)

    here = {each.service for each in members}
    await in_order({name: each for name, each in project.services.items() if name in here}, step)
    await together(one(each) for each in members if each.service not in project.services)


async def stop(chosen: Chosen, names: Sequence[str], timeout: float | None) -> None:
    """Stop containers, those first that depend on others."""
    project = chosen.project_if_any(names)
    async with opened(chosen.where) as engine:
        members = of_services(await engine.members(project.name), names)
        await down.stop(engine, members, project.services, timeout, report)


async def restart(chosen: Chosen, names: Sequence[str], timeout: float | None, alone: bool) -> None:
    """Stop and start containers, and those of services that ask to be restarted with them."""
    project = chosen.project_if_any(names)
    wanted = names if alone or not names else [*names, *_followers(project, names)]
    async with opened(chosen.where) as engine:
        members = of_services(await engine.members(project.name), wanted)
        await down.stop(engine, members, project.services, timeout, report)
        await _start(engine, project, of_services(await engine.members(project.name), wanted))


def _followers(project: Project, names: Collection[str]) -> list[str]:
    found = []
    for name, service in project.services.items():
        if any(each.restart and other in names for other, each in service.depends_on.items()):
            found.append(name)
    return found


async def kill(chosen: Chosen, names: Sequence[str], signal: str) -> None:
    """Send a signal to containers."""
    project = chosen.project_if_any(names)

    async def one(engine: Engine, member: Member) -> None:
        await engine.kill(member.id, signal)
        report("Container", member.name, "Killed")

    async with opened(chosen.where) as engine:
        members = of_services(await engine.members(project.name), names)
        await together(one(engine, each) for each in members if each.runs)


async def remove(chosen: Chosen, names: Sequence[str], force: bool, stop_first: bool, volumes: bool) -> None:
    """Remove containers that do not run."""
    project = chosen.project_if_any(names)
    async with opened(chosen.where) as engine:
        members = of_services(await engine.members(project.name), names)
        if stop_first:
            await down.stop(engine, members, project.services, None, report)
            members = of_services(await engine.members(project.name), names)
        going = [each for each in members if not each.runs]
        if not going:
            return
        if not force:
            listed = ", ".join(each.name for each in going)
            click.confirm(f"Remove {listed}?", abort=True, err=True)
        await down.remove(engine, going, volumes, report)
