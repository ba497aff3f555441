"""What `compose up`, `down` and `pull` do once their options are read."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import TypedDict

import click

from windlass.errors import Unimplemented
from windlass_client.compose import down as downwards
from windlass_client.compose import images, shared
from windlass_client.compose.adapter import opened
from windlass_client.compose.attached import Attached
from windlass_client.compose.chosen import Chosen, report
from windlass_client.compose.converge import ALWAYS, DIVERGED, NEVER
from windlass_client.compose.engine import Engine, Member
from windlass_client.compose.following import Printer, style
from windlass_client.compose.model import HEALTHY, Dependency, Project, Service
from windlass_client.compose.order import with_dependencies
from windlass_client.compose.up import Up, UpOptions
from windlass_client.compose.waiting import wait_for


class UpRequest(TypedDict):
    """The options and arguments of `compose up`."""

    services: tuple[str, ...]
    detach: bool
    wait: bool
    build: bool
    pull: str | None
    force_recreate: bool
    no_recreate: bool
    no_start: bool
    no_deps: bool
    remove_orphans: bool
    scale: tuple[str, ...]
    timeout: float | None
    abort: bool
    decisive: str
    no_color: bool
    no_log_prefix: bool
    timestamps: bool


async def up(chosen: Chosen, request: UpRequest) -> int:
    """Bring a project up, and return the exit code."""
    _check(request)
    project = chosen.project(request["services"])
    options = _options(request, project)
    services = _services(project, request["services"], request["no_deps"])
    async with opened(chosen.where) as engine:
        await _orphans(engine, project, request["remove_orphans"])
        if request["detach"] or request["wait"] or request["no_start"]:
            await Up(engine, project, report, options).bring(services)
            if request["wait"]:
                await _wait(engine, project, services)
            return 0
        printer = Printer(style(request["no_color"], request["no_log_prefix"], request["timestamps"]), project.name)
        attached = Attached(engine, project, printer, report, request["abort"], request["decisive"])
        with attached.interruptible():
            await attached.bring(Up(engine, project, report, options, attached.attend).bring(services))
            return await attached.finish()


def _check(request: UpRequest) -> None:
    if request["build"]:
        raise Unimplemented("--build is not supported; `windlass build -t IMAGE DIR` builds the image before")
    if request["force_recreate"] and request["no_recreate"]:
        raise click.UsageError("--force-recreate and --no-recreate exclude each other")
    if (request["detach"] or request["wait"]) and (request["abort"] or request["decisive"]):
        raise click.UsageError(
            "--abort-on-container-exit and --exit-code-from follow containers; leave -d and --wait out"
        )


def _options(request: UpRequest, project: Project) -> UpOptions:
    if request["decisive"] and request["decisive"] not in project.services:
        raise click.UsageError(f"--exit-code-from: the project has no service {request['decisive']!r}")
    return UpOptions(
        ALWAYS if request["force_recreate"] else NEVER if request["no_recreate"] else DIVERGED,
        not request["no_start"],
        request["pull"] or "",
        request["timeout"],
        dict(_scale(each, project) for each in request["scale"]),
    )


def _scale(text: str, project: Project) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if name not in project.services or not (count.isascii() and count.isdigit() and len(count) < 5):
        raise click.UsageError(f"--scale {text[:80]!r} is not of the form SERVICE=N with a service of the project")
    return name, int(count)


def _services(project: Project, names: Sequence[str], alone: bool) -> Mapping[str, Service]:
    if not alone:
        return with_dependencies(project.services, names)
    return {name: each for name, each in project.services.items() if not names or name in names}


async def _orphans(engine: Engine, project: Project, remove: bool) -> None:
    found = downwards.orphans(await engine.members(project.name), project)
    if remove:
        await downwards.take_down(engine, found, {}, None, False, report)
    elif found:
        names = ", ".join(each.name for each in found)
        sys.stderr.write(f"windlass: the file no longer has the services of {names}; --remove-orphans removes them\n")


async def _wait(engine: Engine, project: Project, services: Mapping[str, Service]) -> None:
    """Return when all is healthy that has a health check."""

    async def one(name: str) -> None:
        members = [each for each in await engine.members(project.name) if each.service == name]
        if any(each.health for each in members):
            await wait_for(engine, project, "--wait", name, Dependency(HEALTHY))

    await asyncio.gather(*(one(name) for name in services))


async def down(
    chosen: Chosen, names: Sequence[str], volumes: bool, remove_orphans: bool, timeout: float | None
) -> None:
    """Take a project down, or some of its services."""
    project = chosen.project_if_any(names)
    async with opened(chosen.where) as engine:
        members = await engine.members(project.name)
        await downwards.take_down(
            engine, _going(members, project, names, remove_orphans), project.services, timeout, volumes, report
        )
        if not names:
            await shared.remove(engine, project.name, volumes, report)


def _going(members: Sequence[Member], project: Project, names: Sequence[str], orphans: bool) -> list[Member]:
    if names:
        return [each for each in members if each.service in names]
    if not project.files or orphans:
        return list(members)
    left = {each.id for each in downwards.orphans(members, project)}
    return [each for each in members if each.id not in left]


async def pull(chosen: Chosen, names: Sequence[str], include_deps: bool, quiet: bool) -> None:
    """Pull the images of services."""
    project = chosen.project(names)
    services = _services(project, names, alone=not include_deps)
    async with opened(chosen.where, quiet) as engine:
        await images.pull(engine, project, services.values())
