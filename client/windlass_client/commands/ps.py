"""`windlass ps`."""

from __future__ import annotations

import asyncio

import click

from windlass_client.cli import Where

COLUMNS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Ports": "PORTS",
    "Names": "NAMES",
}


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Show containers that do not run, too.")
@click.option("-q", "--quiet", is_flag=True, help="Print IDs only.")
@click.option("-n", "--last", type=int, default=-1, metavar="N", help="Show the newest N, whatever their state.")
@click.option("-l", "--latest", is_flag=True, help="Show the newest, whatever its state.")
@click.option("-s", "--size", is_flag=True, help="Show how much each has written.")
@click.option(
    "-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those that match; see the docs."
)
@click.option("--format", "form", default="", metavar="TEMPLATE", help="A template, table TEMPLATE, or json.")
@click.option("--no-trunc", is_flag=True, help="Print whole IDs and commands.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list, with what the daemon says.")
@click.pass_obj
def ps(
    where: Where,
    everything: bool,
    quiet: bool,
    last: int,
    latest: bool,
    size: bool,
    filters: tuple[str, ...],
    form: str,
    no_trunc: bool,
    as_json: bool,
) -> None:
    """List containers that run."""
    from windlass_client import format, output
    from windlass_client.listings import containers, filtering

    wanted = filtering.parse(filters)
    limit = 1 if latest else last
    everything = everything or limit >= 0 or wanted.names_states

    async def work() -> list[containers.Seen]:
        async with where.client() as client:
            found = await containers.seen(client, everything)
            found = [each for each in found if wanted.accepts(each)]
            found = found[:limit] if limit >= 0 else found
            if size:
                await containers.measure(client, found)
            return found

    found = asyncio.run(work())
    if as_json:
        output.document([each.record() for each in found])
        return
    rows = [each.row(not no_trunc) for each in found]
    if quiet:
        for each, row in zip(found, rows, strict=True):
            click.echo(each.word if each.shadowed else row["ID"])
    elif form == "json":
        format.rows([{key: value for key, value in row.items() if key != "Label"} for row in rows], {}, form)
    else:
        format.rows(rows, {**COLUMNS, **({"Size": "SIZE"} if size else {})}, form)
