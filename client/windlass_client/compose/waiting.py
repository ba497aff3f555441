"""Waits for what must be so of one service before another starts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from windlass.errors import FailedPrecondition
from windlass_client.compose.engine import HEALTHY, UNHEALTHY, Engine, Member
from windlass_client.compose.model import COMPLETED, STARTED, Dependency, Project
from windlass_client.compose.model import HEALTHY as HEALTH_CONDITION

PAUSE = 0.25


async def wait_for(engine: Engine, project: Project, service: str, name: str, dependency: Dependency) -> None:
    """Return once a dependency of a service is as it must be. Raises FailedPrecondition if it never will be."""
    if dependency.condition == STARTED:
        return
    while True:
        members = [each for each in await engine.members(project.name) if each.service == name and not each.one_off]
        problem = "it has no container" if not members else _problem(members, dependency.condition)
        if problem:
            if not dependency.required:
                return
            raise FailedPrecondition(
                f'service "{service}" waits for {name}, and {problem}; see `windlass compose logs {name}`'
            )
        if all(_holds(each, dependency.condition) for each in members):
            return
        await asyncio.sleep(PAUSE)


def _holds(member: Member, condition: str) -> bool:
    if condition == COMPLETED:
        return not member.runs and member.exit_code == 0
    return member.health == HEALTHY


def _problem(members: Sequence[Member], condition: str) -> str:
    """Return why a condition cannot come true any more."""
    for each in members:
        if condition == COMPLETED and not each.runs and each.exit_code:
            return f"{each.name} has ended with {each.exit_code}"
        if condition == HEALTH_CONDITION:
            if not each.runs:
                return f"{each.name} has ended with {each.exit_code}"
            if not each.health:
                return f"{each.name} has no health check; add healthcheck to the service"
            if each.health == UNHEALTHY:
                return f"{each.name} is unhealthy"
    return ""
