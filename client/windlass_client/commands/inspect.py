"""`windlass inspect`."""

from __future__ import annotations

import asyncio

import click

from windlass_client.cli import Where


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
@click.pass_obj
def inspect(where: Where, names: tuple[str, ...], form: str, size: bool, kind: str | None) -> int:
    """Print all that is known about containers, images, volumes and networks, as JSON."""

    async def work() -> tuple[list[object], int]:
        from windlass.errors import Error
        from windlass_client import inspection, listing

        found: list[object] = []
        code = 0
        async with where.client() as client:
            for name in names:
                try:
                    found.append(await inspection.document(client, name, kind or "", size))
                except Error as error:
                    listing.fail(error)
                    code = 1
        return found, code

    from windlass_client import listing

    found, code = asyncio.run(work())
    listing.documents(found, form)
    return code
