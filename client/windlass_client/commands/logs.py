"""`windlass logs`."""

from __future__ import annotations

import click

from windlass_client.cli import Where


@click.command()
@click.argument("container")
@click.option("-f", "--follow", is_flag=True, help="Go on until the container has ended.")
@click.option("-n", "--tail", default="all", metavar="N", help="Only the last N lines.")
@click.option("--since", default="", metavar="WHEN", help="Only what is newer: 10m, 2026-12-01T10:00:00Z.")
@click.option("--until", default="", metavar="WHEN", help="Only what is older.")
@click.option("-t", "--timestamps", is_flag=True, help="Show the time before each line.")
@click.pass_obj
def logs(where: Where, container: str, follow: bool, tail: str, since: str, until: str, timestamps: bool) -> None:
    """Print what CONTAINER has written."""
    import asyncio

    from windlass_client import lookup
    from windlass_client.lifecycle import asked
    from windlass_client.logs import moments, showing
    from windlass_client.logs.finding import log_of
    from windlass_client.namespace import from_message

    count = int(tail) if tail.isascii() and tail.isdigit() else None
    begin, end = (moments.stamp(text) if text else "" for text in (since, until))

    async def find() -> asked.Asked:
        async with where.client() as client:
            return asked.of(from_message(await lookup.container(client, container)))

    # The log is a file: the daemon may restart while it is read.
    log = log_of(where, asyncio.run(find()))
    showing.show(showing.chosen(log.entries(count, follow), begin, end), timestamps)
