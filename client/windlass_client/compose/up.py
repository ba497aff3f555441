"""Brings a project up: networks and volumes, then containers, made anew where they changed, started in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from windlass.errors import FailedPrecondition
from windlass_client.compose import identity, images
from windlass_client.compose.converge import DIVERGED, Steps, plan
from windlass_client.compose.engine import Engine, Member
from windlass_client.compose.model import Project, Service
from windlass_client.compose.parallel import in_order, together
from windlass_client.compose.shared import Report, ensure
from windlass_client.compose.waiting import wait_for
from windlass_client.compose.wanted import sharing, want


@dataclass(frozen=True)
class UpOptions:
    """How a project is brought up."""

    recreate: str = DIVERGED
    start: bool = True
    pull: str = ""
    timeout: float | None = None
    scale: Mapping[str, int] = field(default_factory=dict)


def ignore(member: Member) -> None:
    """Let a container run by itself."""


class Up:
    """One way up."""

    def __init__(
        self,
        engine: Engine,
        project: Project,
        report: Report,
        options: UpOptions | None = None,
        attend: Callable[[Member], object] = ignore,
    ) -> None:
        """``attend`` is called with each container as it starts, or if it runs already."""
        self._engine = engine
        self._attend = attend
        self._project = project
        self._report = report
        self._options = options or UpOptions()
        self._digests: dict[str, str] = {}
        self._members: Sequence[Member] = ()
        self._renewed: set[str] = set()
        """Services with a container that was made anew."""

    async def bring(self, services: Mapping[str, Service]) -> None:
        """Bring services up. Raises errors of the first step that failed; what was done before stays."""
        self._members = await self._engine.members(self._project.name)
        self._digests = await images.ensure(self._engine, self._project, services.values(), self._options.pull)
        await ensure(self._engine, self._project, services.values(), self._report)
        await in_order(services, self._converge)
        if self._options.start:
            await in_order(services, self._start)

    async def _converge(self, name: str) -> None:
        service = self._project.services[name]
        steps = self._plan(service)
        if steps.recreate or steps.create:
            self._renewed.add(name)
        await together(self._remove(each) for each in steps.remove)
        for each in steps.recreate:
            await self._remove(each, "Recreate")
            await self._create(service, each.number)
        for number in steps.create:
            await self._create(service, number)

    def _plan(self, service: Service) -> Steps:
        count = self._options.scale.get(service.name, service.replicas)
        if count > 1 and service.container_name:
            raise FailedPrecondition(
                f'service "{service.name}": {count} containers cannot have the name {service.container_name}; '
                "remove container_name"
            )
        members = [each for each in self._members if each.service == service.name and not each.one_off]
        steps = plan(
            members,
            count,
            identity.config_hash(self._project, service),
            self._digests[service.name],
            self._options.recreate,
        )
        other = sharing(service)
        if other in self._renewed:
            # it was in the network of a container that is gone
            return Steps((), (*steps.keep, *steps.recreate), steps.create, steps.remove)
        return steps

    async def _remove(self, member: Member, what: str = "Remove") -> None:
        if member.runs:
            await self._engine.stop(member.id, self._options.timeout)
        await self._engine.remove(member.id)
        self._report("Container", member.name, f"{what}d")

    async def _create(self, service: Service, number: int) -> None:
        wanted = await want(self._engine, self._project, service, number, self._digests[service.name])
        await self._engine.create(wanted)
        self._report("Container", wanted.name, "Created")

    async def _start(self, name: str) -> None:
        service = self._project.services[name]
        for other, dependency in service.depends_on.items():
            await wait_for(self._engine, self._project, name, other, dependency)
        members = [each for each in await self._engine.members(self._project.name) if each.service == name]
        again = any(each.restart and other in self._renewed for other, each in service.depends_on.items())
        for member in members:
            if member.one_off:
                continue
            if member.runs and again:
                await self._engine.stop(member.id, self._options.timeout)
            if not member.runs or again:
                await self._engine.start(member.id)
                self._report("Container", member.name, "Started")
            else:
                self._report("Container", member.name, "Running")
            self._attend(member)
