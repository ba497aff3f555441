"""`windlass inspect`."""

from __future__ import annotations

import asyncio

import click

from windlass_client.cli import Where


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", metavar="TEMPLATE", help="A Go template, or json.")
@click.option("--type", "kind", type=click.Choice(["container", "image"]), default=None, help="Only one kind.")
@click.pass_obj
def inspect(where: Where, names: tuple[str, ...], form: str, kind: str | None) -> int:
    """Print all that is known about containers or images, as JSON."""

    async def work() -> tuple[list[object], int]:
        from windlass.errors import Error
        from windlass_client import dockercontainer, listing

        found: list[object] = []
        code = 0
        async with where.client() as client:
            for name in names:
                try:
                    found.append(await dockercontainer.either(client, name, kind))
                except Error as error:
                    listing.fail(error)
                    code = 1
        return found, code

    from windlass_client import listing

    found, code = asyncio.run(work())
    listing.documents(found, form)
    return code
