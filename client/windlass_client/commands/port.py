"""`windlass port`: which ports of the host lead to a container."""

from __future__ import annotations

import asyncio

import click

from windlass_client.cli import Where


@click.command()
@click.argument("container")
@click.argument("port", required=False, default="", metavar="[PORT[/PROTOCOL]]")
@click.pass_obj
def port(where: Where, container: str, port: str) -> None:
    """List the published ports of CONTAINER, or where one of its ports is published."""
    from windlass.errors import NotFound
    from windlass_client.networks.published import published, shown

    async def work() -> None:
        from windlass_client import lookup

        async with where.client() as client:
            found = await lookup.container(client, container)
            running = await published(client, found)
        number, _, protocol = port.partition("/")
        asked = f"{number}/{protocol or 'tcp'}"
        wanted = [each for each in running if not port or f"{each.container_port}/{each.protocol}" == asked]
        if port and not wanted:
            raise NotFound(f"no public port '{asked}' published for {container}")
        for each in wanted:
            click.echo(shown(each) if port else f"{each.container_port}/{each.protocol} -> {shown(each)}")

    asyncio.run(work())
