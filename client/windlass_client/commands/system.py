"""`windlass info` and system: what there is, what it takes, and how to get rid of what nothing needs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from windlass_client.cli import Commands, Where

if TYPE_CHECKING:
    from windlass_client.asking import Filters
    from windlass_client.system.usage import Kind

COLUMNS = {"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}
HEADS = {
    "Images": {"Name": "IMAGE", "ID": "IMAGE ID", "Size": "SIZE", "Containers": "CONTAINERS"},
    "Containers": {"ID": "CONTAINER ID", "Name": "NAMES", "Image": "IMAGE", "Status": "STATUS", "Size": "SIZE"},
    "Local Volumes": {"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"},
}


@click.group(cls=Commands, table={"df": "system:df", "info": "system:info", "prune": "system:prune"})
def system() -> None:
    """Look after all that there is."""


@click.command()
@click.option("-f", "--format", "form", default="", metavar="TEMPLATE", help="A Go template, or json.")
@click.pass_obj
def info(where: Where, form: str) -> None:
    """Say what there is: the daemon, its containers and images, and the machine."""

    async def work() -> dict[str, object]:
        from windlass_client.system import info

        async with where.client() as client:
            return await info.document(client)

    found = asyncio.run(work())
    if form:
        from windlass_client import listing

        listing.documents([found], form)
        return
    from windlass_client import output
    from windlass_client.system.info import lines

    for line in lines(found):
        click.echo(output.printable(line))


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="Show each image, container and volume.")
@click.option("--format", "form", default="", metavar="TEMPLATE", help="table, json, or a Go template.")
@click.pass_obj
def df(where: Where, verbose: bool, form: str) -> None:
    """Show how much of the disk images, containers and volumes take."""
    from windlass_client import format

    async def work() -> list[Kind]:
        from windlass_client.system import usage

        async with where.client() as client:
            return await usage.measure(client)

    found = asyncio.run(work())
    if verbose:
        _print_all(found)
    else:
        format.rows([_row(kind) for kind in found], COLUMNS, form)


def _row(kind: Kind) -> dict[str, object]:
    from windlass_client import format

    share = f" ({kind.reclaimable * 100 // kind.size}%)" if kind.size else ""
    return {
        "Type": kind.name,
        "TotalCount": str(kind.total),
        "Active": str(kind.active),
        "Size": format.size(kind.size),
        "Reclaimable": f"{format.size(kind.reclaimable)}{share}",
    }


def _print_all(found: list[Kind]) -> None:
    from windlass_client import format

    for kind in found:
        if kind.name in HEADS:
            click.echo(f"{kind.name} space usage:\n")
            format.rows([{**row, "Size": format.size(int(str(row["Size"])))} for row in kind.rows], HEADS[kind.name])
            click.echo()


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Images that no container uses, too, not only untagged.")
@click.option("--volumes", is_flag=True, help="Volumes without a name of their own, too.")
@click.option("-f", "--force", is_flag=True, help="Ask no question.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="until, label or label!.")
@click.pass_obj
def prune(where: Where, everything: bool, volumes: bool, force: bool, filters: tuple[str, ...]) -> None:
    """Remove containers that do not run, networks and images that none uses."""
    from windlass_client import asking, format

    wanted = asking.filters(filters, ("until", "label", "label!"))
    images = "all images without at least one container associated to them" if everything else "all dangling images"
    parts = ["all stopped containers", "all networks not used by at least one container"]
    parts += ["all anonymous volumes not used by at least one container"] if volumes else []
    asking.confirm(
        force,
        "This will remove:\n" + "\n".join(f"  - {part}" for part in [*parts, images]) + "\n",
        "system prune",
    )
    freed = asyncio.run(_prune(where, wanted, everything, volumes))
    click.echo(f"Total reclaimed space: {format.size(freed)}")


async def _prune(where: Where, wanted: Filters, everything: bool, volumes: bool) -> int:
    from windlass_client import imageremoval
    from windlass_client.commands.imagenames import print_removed
    from windlass_client.commands.volumes import volumes_of
    from windlass_client.system import pruning
    from windlass_client.volumes import selection

    async with where.client() as client:
        gone, freed = await pruning.containers(client, wanted)
        _print("Deleted Containers:", gone)
        if not wanted:
            _print("Deleted Networks:", await pruning.networks(client))
        chosen = await imageremoval.unused(client, (), wanted, everything)
        removed, size = await imageremoval.prune(client, chosen)
        print_removed(removed)
    freed += size
    if volumes:
        pruned = await selection.pruned(where, volumes_of(where), {}, False)
        _print("Deleted Volumes:", list(pruned.names))
        freed += pruned.freed
    return freed


def _print(title: str, names: list[str]) -> None:
    if names:
        click.echo("\n".join([title, *names, ""]))
