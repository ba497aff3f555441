"""What a shell completes besides commands and options: names of containers and images, as the daemon knows them.

The command line imports this only when a shell asks. Which names fit an argument follows from what it is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from windlass.errors import Error, StartError

if TYPE_CHECKING:
    from windlass_client.client import Client

DEADLINE = 2.0
"""Seconds that a shell waits at most."""


async def containers(client: Client) -> Iterable[str]:
    """Return the names of all containers."""
    return [each.id for each in await client.containers.list()]


async def images(client: Client) -> Iterable[str]:
    """Return the names of all images."""
    return [each.name for each in await client.images.list()]


Source = Callable[["Client"], Awaitable[Iterable[str]]]
SOURCES: Mapping[str, Source] = {"container": containers, "image": images}
"""What is listed, by the word that an argument or an option is called by."""


class Name(click.types.StringParamType):
    """The name of something that exists: a type of arguments that a shell can complete."""

    def __init__(self, source: Source) -> None:
        """Complete what ``source`` lists."""
        self._source = source

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin so; none if the daemon does not answer in time."""
        try:
            found = asyncio.run(self._list(ctx))
        except (Error, StartError, OSError, TimeoutError):
            return []
        return [CompletionItem(each) for each in sorted(found) if each.startswith(incomplete)]

    async def _list(self, ctx: click.Context) -> Iterable[str]:
        from windlass_client.cli import ADDRESS, Where

        given = ctx.find_root().params
        where = Where(given.get("address") or ADDRESS, given.get("namespace") or "default")
        async with asyncio.timeout(DEADLINE), where.client() as client:
            return await self._source(client)


def teach(command: click.Command, group: str = "") -> None:
    """Have the arguments and options of a command, and of those below it, complete the names that they want."""
    for param in command.params:
        source = source_of(param, group)
        if source is not None:
            param.type = Name(source)
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            teach(each, command.name or name)


def source_of(param: click.Parameter, group: str) -> Source | None:
    """Return what lists the names for a parameter: ``containers`` wants a container, ``name`` one of its group."""
    if not isinstance(param.type, click.types.StringParamType):
        return None
    words = (param.metavar or "", param.name or "")
    for word in (each.lower().strip("[].… ").removesuffix("s") for each in words):
        if word in SOURCES:
            return SOURCES[word]
        if word == "name" and isinstance(param, click.Argument):
            return SOURCES.get(group or "container")
    return None
