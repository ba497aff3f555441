"""`windlass cp`, diff, export and commit: the files of containers."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from windlass_client.cli import Where

if TYPE_CHECKING:
    from windlass_client.copying.places import Argument
    from windlass_client.copying.tree import Tree


@click.command()
@click.argument("source")
@click.argument("destination")
@click.option("-L", "--follow-link", is_flag=True, help="Copy what a symbolic link SOURCE points to.")
@click.option("-a", "--archive", is_flag=True, help="Keep owners.")
@click.option("-q", "--quiet", is_flag=True, help="Do not say how much was copied.")
@click.pass_obj
def cp(where: Where, source: str, destination: str, follow_link: bool, archive: bool, quiet: bool) -> None:
    """Copy files between this machine and a container, which may be stopped; one of both is CONTAINER:PATH.

    - stands for a tar stream on standard input or output. SOURCE/. is what a directory has in it.
    """
    from windlass.errors import InvalidArgument
    from windlass_client.copying import copy, places

    origin, target = places.parse(source), places.parse(destination)
    if origin.container and target.container:
        raise InvalidArgument("copying between containers is not built; copy to this machine in between")
    if not origin.container and not target.container:
        raise InvalidArgument("one of SOURCE and DESTINATION must be CONTAINER:PATH")
    if origin.container:
        with _tree(where, origin) as tree:
            if target.is_stream:
                copy.stream_out(tree, _rooted(origin), copy.standard_output(), follow_link)
                return
            size = copy.out_of(tree, _rooted(origin), target.path, follow_link, archive)
    else:
        with _tree(where, target) as tree:
            if origin.is_stream:
                size = copy.stream_in(tree, target.path, sys.stdin.buffer)
            else:
                size = copy.into(tree, target.path, origin.path, follow_link, archive)
    if not quiet:
        from windlass_client import format

        click.echo(f"Successfully copied {format.size(size)} to {destination}", err=True)


def _tree(where: Where, argument: Argument) -> Tree:
    async def work() -> Tree:
        from windlass_client.copying.opening import tree_of
        from windlass_client.datadir import DataDirectory

        async with where.client() as client:
            return await tree_of(client, DataDirectory.of(where), argument.container)

    return asyncio.run(work())


def _rooted(argument: Argument) -> str:
    return argument.path if argument.path.startswith("/") else f"/{argument.path}"
