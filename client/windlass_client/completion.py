"""What a shell completes besides commands and options: names of containers and images, as the daemon knows them.

The command line imports this only when a shell asks. Which names fit an argument follows from what it is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from windlass.errors import Error, StartError

if TYPE_CHECKING:
    from windlass_client.client import Client
    from windlass_client.datadir import Place

DEADLINE = 5.0
"""Seconds that a shell waits for the daemon at most."""


def containers(where: Place) -> Iterable[str]:
    """Return the names of all containers."""
    from windlass_client.lookup import name_of

    async def listed(client: Client) -> list[str]:
        return [name_of(each) for each in await client.containers.list()]

    return asyncio.run(_asked(where, listed))


def images(where: Place) -> Iterable[str]:
    """Return the names of all images."""

    async def listed(client: Client) -> list[str]:
        return [each.name for each in await client.images.list()]

    return asyncio.run(_asked(where, listed))


def networks(where: Place) -> Iterable[str]:
    """Return the names of all networks; those that every host has are for `run`."""
    from windlass_client.networks import settings

    found, _ = settings.catalog().all()
    return ["host", "none", *(each.network.name for each in found)]


def volumes(where: Place) -> Iterable[str]:
    """Return the names of all volumes."""
    from windlass_client.datadir import DataDirectory

    with contextlib.suppress(FileNotFoundError):
        return [each.name for each in DataDirectory.of(where).volumes.iterdir() if each.is_dir()]
    return []


async def _asked(where: Place, listed: Callable[[Client], Awaitable[Iterable[str]]]) -> Iterable[str]:
    from windlass_client.client import Client

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # as for commands
    async with Client(where.address, where.namespace, DEADLINE) as client:
        return await listed(client)


Where = Callable[[click.Context], "Place"]
"""Returns the daemon and the namespace that a command line is about."""
Source = Callable[["Place"], Iterable[str]]
SOURCES: Mapping[str, Source] = {"container": containers, "image": images, "network": networks, "volume": volumes}
"""What is listed, by the word that an argument or an option is called by."""


class Name(click.types.StringParamType):
    """The name of something that exists: a type of arguments that a shell can complete."""

    def __init__(self, source: Source, where: Where) -> None:
        """Complete what ``source`` lists."""
        self._source = source
        self._where = where

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin so; none if the daemon does not answer in time."""
        try:
            found = self._source(self._where(ctx))
        except (Error, StartError, OSError):
            return []
        return [CompletionItem(each) for each in sorted(found) if each.startswith(incomplete)]


def teach(command: click.Command, group: str, where: Where) -> None:
    """Have the arguments and options of a command, and of those below it, complete the names that they want."""
    for param in command.params:
        source = source_of(param, group)
        if source is not None:
            param.type = Name(source, where)
    if isinstance(command, click.Group):
        for each in command.commands.values():
            teach(each, command.name or "", where)


def source_of(param: click.Parameter, group: str) -> Source | None:
    """Return what lists the names for a parameter: ``containers`` wants containers, ``name`` one of its group."""
    if not isinstance(param.type, click.types.StringParamType):
        return None
    words = (param.metavar or "", param.name or "")
    for word in (each.lower().strip("[].… ").removesuffix("s") for each in words):
        if word in SOURCES:
            return SOURCES[word]
        if word == "name" and isinstance(param, click.Argument):
            return SOURCES.get(group, containers)
    return None
