"""`windlass inspect`: all that is known, as docker's JSON or by a template."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from windlass_client.cli import Where

if TYPE_CHECKING:
    from windlass_client.client import Client


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", metavar="TEMPLATE", help="A Go template, or json.")
@click.option("-s", "--size", is_flag=True, help="Say how much containers have written.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["container", "image", "volume", "network"]),
    default=None,
    help="Look for this kind only.",
)
@click.option(
    "--mode",
    type=click.Choice(["docker", "native"]),
    default="docker",
    show_default=True,
    help="native: the records of the daemon, with the spec.",
)
@click.pass_obj
def inspect(where: Where, names: tuple[str, ...], form: str, size: bool, kind: str | None, mode: str) -> int:
    """Print all that is known about containers, images, volumes and networks, as JSON."""
    from windlass_client import listing

    async def work() -> tuple[list[object], int]:
        from windlass.errors import Error

        found: list[object] = []
        code = 0
        async with where.client() as client:
            for name in names:
                try:
                    found.append(await _document(client, name, kind or "", size, mode))
                except Error as error:
                    listing.fail(error)
                    code = 1
        return found, code

    found, code = asyncio.run(work())
    listing.documents(found, form)
    return code


async def _document(client: Client, name: str, kind: str, size: bool, mode: str) -> object:
    if mode == "native":
        from windlass_client import describe

        return await describe.describe(client, name)
    from windlass_client.inspection import anything

    return await anything.document(client, name, kind, size)
