"""`windlass volume`: named directories that outlive containers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from windlass_client.cli import Group, Where

if TYPE_CHECKING:
    from windlass_client.volumes.volume import Volume, Volumes


@click.group(cls=Group)
def volume() -> None:
    """Keep data that outlives containers."""


def volumes_of(where: Where) -> Volumes:
    """Return the volumes of the namespace."""
    from windlass_client.datadir import DataDirectory
    from windlass_client.volumes.volume import Volumes

    return Volumes(DataDirectory.of(where))


@volume.command()
@click.argument("name", default="")
@click.option("-d", "--driver", default="local", help="Only local is known.")
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Label the volume.")
@click.pass_obj
def create(where: Where, name: str, driver: str, labels: tuple[str, ...]) -> None:
    """Make a volume; without NAME one is made up. A volume that is there already is left as it is."""
    from windlass.errors import InvalidArgument

    if driver != "local":
        raise InvalidArgument(f"volume driver {driver[:40]!r} is not known; there is only local")
    volumes = volumes_of(where)
    with volumes.locked("volumes"):
        made, _ = volumes.create(name, dict(label.partition("=")[::2] for label in labels), anonymous=not name)
    click.echo(made.name)


@volume.command()
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="dangling, driver, label or name.")
@click.option("--format", "form", default="", metavar="TEMPLATE", help="table, json, or a Go template.")
@click.pass_obj
def ls(where: Where, quiet: bool, filters: tuple[str, ...], form: str) -> None:
    """List volumes."""
    from windlass_client import asking, format
    from windlass_client.volumes import selection

    wanted = asking.filters(filters, ("dangling", "driver", "label", "name"))
    found = asyncio.run(selection.matching(where, volumes_of(where), wanted))
    if quiet:
        for each in found:
            click.echo(each.name)
        return
    format.rows([_row(each) for each in found], {"Driver": "DRIVER", "Name": "VOLUME NAME"}, form)


def _row(each: Volume) -> dict[str, object]:
    return {
        "Driver": "local",
        "Name": each.name,
        "Labels": ",".join(f"{key}={value}" for key, value in each.labels.items()),
        "Mountpoint": str(each.path),
        "Scope": "local",
    }


@volume.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", metavar="TEMPLATE", help="A Go template, or json.")
@click.pass_obj
def inspect(where: Where, names: tuple[str, ...], form: str) -> int:
    """Print all that is known about volumes, as JSON."""
    from windlass_client import listing

    volumes = volumes_of(where)
    return listing.inspect(names, lambda name: volumes.get(name).document(), form)


@volume.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="A volume that does not exist is not an error.")
@click.pass_obj
def rm(where: Where, names: tuple[str, ...], force: bool) -> int:
    """Remove volumes that no container uses, with all that is in them."""
    from windlass_client import listing
    from windlass_client.volumes import removal

    async def work() -> int:
        volumes = volumes_of(where)
        async with where.client() as client:
            return await listing.each(names, lambda name: removal.remove(client, volumes, name), force)

    return asyncio.run(work())


@volume.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Volumes with names, too.")
@click.option("-f", "--force", is_flag=True, help="Ask no question.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="label or label!.")
@click.pass_obj
def prune(where: Where, everything: bool, force: bool, filters: tuple[str, ...]) -> None:
    """Remove volumes without a name of their own that no container uses."""
    from windlass_client import asking, format
    from windlass_client.volumes import selection

    wanted = asking.filters(filters, ("label", "label!"))
    kind = "all" if everything else "anonymous"
    asking.confirm(force, f"This will remove {kind} local volumes not used by at least one container.", "volume prune")

    pruned = asyncio.run(selection.pruned(where, volumes_of(where), wanted, everything))
    if pruned.names:
        click.echo("\n".join(["Deleted Volumes:", *pruned.names, ""]))
    click.echo(f"Total reclaimed space: {format.size(pruned.freed)}")
