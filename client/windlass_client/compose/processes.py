"""What `compose exec` and `compose run` do: processes in containers of services."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TypedDict

import click

from windlass.errors import FailedPrecondition, NotFound
from windlass_client.compose import images, shared, shorthand
from windlass_client.compose.adapter import ClientEngine, opened
from windlass_client.compose.chosen import Chosen, report
from windlass_client.compose.engine import Engine, Member, Wanted
from windlass_client.compose.fields import Fields
from windlass_client.compose.model import Project, Service
from windlass_client.compose.order import needs, with_dependencies
from windlass_client.compose.parts import mounts, ports
from windlass_client.compose.up import Up
from windlass_client.compose.values import Items, Place, Scalar, Section
from windlass_client.compose.waiting import wait_for
from windlass_client.compose.wanted import want
from windlass_client.lifecycle import executing
from windlass_client.lifecycle.attaching import Attachment
from windlass_images.unpack import ignore


class ExecRequest(TypedDict):
    """The options and arguments of `compose exec`."""

    service: str
    arguments: tuple[str, ...]
    detach: bool
    no_terminal: bool
    index: int
    env: tuple[str, ...]
    user: str
    cwd: str


class RunRequest(TypedDict):
    """The options and arguments of `compose run`."""

    service: str
    arguments: tuple[str, ...]
    remove: bool
    detach: bool
    no_terminal: bool
    no_deps: bool
    name: str
    entrypoint: str | None
    env: tuple[str, ...]
    label: tuple[str, ...]
    user: str
    cwd: str
    publish: tuple[str, ...]
    service_ports: bool
    volume: tuple[str, ...]


def on_terminal(refused: bool) -> bool:
    """Tell whether a process gets a terminal: if we have one, and the user does not refuse."""
    return not refused and sys.stdin.isatty() and sys.stdout.isatty()


async def run_exec(chosen: Chosen, request: ExecRequest) -> int:
    """Run a process in a container of a service, and return its exit code."""
    service = request["service"]
    project = chosen.project_if_any((service,))
    process = executing.Wanted(
        request["arguments"],
        tuple(f"{key}={value}" for key, value in map(_pair, request["env"])),
        request["user"],
        request["cwd"],
        terminal=on_terminal(request["no_terminal"]) and not request["detach"],
        stdin=True,
    )
    async with chosen.where.client() as client:
        member = _chosen(
            await ClientEngine(chosen.where, client, ignore).members(project.name), service, request["index"]
        )
        status, _ = await executing.execute(client, member.id, process, detach=request["detach"])
        return status


def _chosen(members: Sequence[Member], service: str, index: int) -> Member:
    """Return the container of a number among those of a service that run. Raises FailedPrecondition, NotFound."""
    found = sorted((each for each in members if each.service == service and each.runs), key=lambda each: each.number)
    running = [each for each in found if not each.one_off]
    if not running:
        raise FailedPrecondition(f'service "{service}" does not run; `windlass compose up -d {service}` starts it')
    if not 1 <= index <= len(running):
        raise NotFound(f'service "{service}" has {len(running)} running containers, and --index is {index}')
    return running[index - 1]


async def run_one_off(chosen: Chosen, request: RunRequest) -> int:
    """Run a process in a new container of a service, and return its exit code."""
    if request["remove"] and request["detach"]:
        raise click.UsageError("--rm and -d exclude each other; `windlass compose rm` removes it later")
    project = chosen.project((request["service"],))
    service = project.services[request["service"]]
    async with opened(chosen.where) as engine:
        if not request["no_deps"]:
            await _bring_dependencies(engine, project, service)
        wanted = await _wanted(engine, project, changed(service, project, request), request)
        id = await engine.create(wanted)
        if request["detach"]:
            await engine.start(id)
            click.echo(wanted.name)
            return 0
        try:
            code = await engine.start_attached(id, Attachment(stdin=True))
        except BaseException:
            if request["remove"]:
                await asyncio.shield(engine.remove(id, volumes=True))
            raise
        if code is None:
            return 0  # its user has left it, and it runs on
        if request["remove"]:
            await engine.remove(id, volumes=True)
        return code


async def _bring_dependencies(engine: Engine, project: Project, service: Service) -> None:
    wanted = with_dependencies(project.services, list(needs(service)))
    if needs(service):
        await Up(engine, project, report).bring(wanted)
        for name, dependency in service.depends_on.items():
            await wait_for(engine, project, service.name, name, dependency)


async def _wanted(engine: Engine, project: Project, service: Service, request: RunRequest) -> Wanted:
    digests = await images.ensure(engine, project, [service])
    await shared.ensure(engine, project, [service], report)
    name = request["name"] or f"{project.name}-{service.name}-run-{secrets.token_hex(6)}"
    wanted = await want(engine, project, service, 1, digests[service.name], name)
    return replace(wanted, interactive=not request["detach"], remove=request["remove"])


def changed(service: Service, project: Project, request: RunRequest) -> Service:
    """Return a service as the options of `compose run` change it: for one container, which ends for good."""
    given = Section({key: _items(request[key], f"--{key}") for key in ("publish", "volume")}, Place("--", 0))
    long = shorthand.expand(
        replace(given, entries={"ports": given.entries["publish"], "volumes": given.entries["volume"]}), "run"
    )
    read = Fields(long, "run")
    entrypoint = request["entrypoint"]
    command = request["arguments"] or (() if entrypoint is not None else service.command)
    return replace(
        service,
        container_name="",
        replicas=1,
        restart="no",
        terminal=on_terminal(request["no_terminal"]) and not request["detach"],
        command=command,
        entrypoint=service.entrypoint if entrypoint is None else tuple(shlex.split(entrypoint)),
        environment={**service.environment, **dict(_pair(each) for each in request["env"])},
        labels={**service.labels, **dict(_pair(each) for each in request["label"])},
        user=request["user"] or service.user,
        working_dir=request["cwd"] or service.working_dir,
        ports=(*(service.ports if request["service_ports"] else ()), *ports(read)),
        mounts=(*service.mounts, *mounts(read, project.directory)),
    )


def _items(texts: Sequence[str], option: str) -> Items:
    place = Place(option, 0)
    return Items(tuple(Scalar(text, place) for text in texts), place)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    return key, value if equals else os.environ.get(key, "")
