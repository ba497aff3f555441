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


@click.command()
@click.argument("container")
@click.pass_obj
def diff(where: Where, container: str) -> None:
    """Show what CONTAINER has changed in its image's files: A is added, C changed, D deleted."""

    async def work() -> list[tuple[str, str]]:
        from windlass_client import lookup
        from windlass_client.committing import diffing

        async with where.client() as client:
            return await diffing.changes(client, await lookup.container(client, container))

    from windlass_client import output

    for path, kind in asyncio.run(work()):
        click.echo(f"{kind} {output.printable(path)}")


@click.command()
@click.argument("container")
@click.option("-o", "--output", "archive", default="-", metavar="FILE", help="Write to a file, not standard output.")
@click.pass_obj
def export(where: Where, container: str, archive: str) -> None:
    """Write the files of CONTAINER as a tar archive, without its volumes."""
    if archive == "-" and sys.stdout.isatty():
        raise click.UsageError("an archive is not written to a terminal; use -o FILE, or redirect standard output")

    async def work() -> Tree:
        from windlass_client import lookup
        from windlass_client.committing.export import files_of

        async with where.client() as client:
            return await files_of(client, await lookup.container(client, container))

    from windlass_client.copying.packing import Packer
    from windlass_client.replacing import replaced

    with asyncio.run(work()) as tree, replaced(archive) as file:
        packer = Packer(file)
        packer.add_below(tree.descriptor)
        packer.close()


@click.command()
@click.argument("container")
@click.argument("name", metavar="REPOSITORY[:TAG]")
@click.option("-a", "--author", default="", help="Who made it, such as `Ann <ann@example.org>`.")
@click.option("-m", "--message", default="", help="What was changed.")
@click.option("-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="Such as CMD, ENV or USER.")
@click.option("-p", "--pause/--no-pause", default=True, help="Freeze the container meanwhile.")
@click.pass_obj
def commit(
    where: Where, container: str, name: str, author: str, message: str, changes: tuple[str, ...], pause: bool
) -> None:
    """Make an image of what CONTAINER has changed, on top of its own image."""

    async def work() -> str:
        from windlass_client import lookup
        from windlass_client.committing import commit
        from windlass_client.shortnames import full
        from windlass_registry import references

        wanted = commit.Wanted(str(references.parse(full(name))), author, message, changes, pause)
        async with where.client() as client:
            return (await commit.commit(client, await lookup.container(client, container), wanted)).digest

    click.echo(asyncio.run(work()))
