"""`windlass image` tag, rm and prune: gives and takes the names of images."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from windlass_client.cli import Where
from windlass_client.commands.images import as_json_option, names

if TYPE_CHECKING:
    from windlass_client.asking import Filters
    from windlass_client.imageremoval import Removed


@click.command()
@click.argument("source")
@click.argument("targets", nargs=-1, required=True)
@click.option("--force", is_flag=True, hidden=True, help="Names are taken away from other images anyway.")
@as_json_option
@click.pass_obj
def tag(where: Where, source: str, targets: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Give image SOURCE the names TARGETS, too; they are taken away from other images."""

    async def work() -> list[str]:
        from windlass_client import imagefinding
        from windlass_client.shortnames import full
        from windlass_client.store import ClientStore
        from windlass_registry import references
        from windlass_remote.messages import from_descriptor

        made = [str(references.parse(full(name))) for name in targets]
        async with where.client() as client:
            found = await imagefinding.find(client, source)
            for name in made:
                await ClientStore(client).images.put(name, from_descriptor(found.target), dict(found.labels))
        return made

    made = asyncio.run(work())
    if as_json:
        names(made, as_json)


@click.command()
@click.argument("images", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Although a container that does not run was made of it.")
@click.option("--async", "later", is_flag=True, help="Leave its blobs and snapshots to the next garbage collection.")
@as_json_option
@click.pass_obj
def rm(where: Where, images: tuple[str, ...], force: bool, later: bool, as_json: bool) -> int:
    """Remove IMAGES, and what only they need. An ID removes all its names."""

    async def work() -> tuple[list[Removed], int]:
        from windlass.errors import Error
        from windlass_client import imageremoval, listing

        found, code = [], 0
        async with where.client() as client:
            for number, word in enumerate(images):
                try:
                    last = number == len(images) - 1
                    found.append(await imageremoval.remove(client, word, force, sync=last and not later))
                except Error as error:
                    listing.fail(error)
                    code = 1
        return found, code

    removed, code = asyncio.run(work())
    if as_json:
        names([name for each in removed for name in each.names], as_json)
    else:
        _print(removed)
    return code


def _print(removed: list[Removed]) -> None:
    from windlass_client import output
    from windlass_client.shortnames import familiar

    for each in removed:
        for name in each.names:
            click.echo(f"Untagged: {output.printable(familiar(name))}")
        if each.deleted:
            click.echo(f"Deleted: {each.deleted}")


@click.command()
@click.argument("filters", nargs=-1)
@click.option("-a", "--all", "everything", is_flag=True, help="Those with a tag, too.")
@click.option("-f", "--force", is_flag=True, help="Ask no question.")
@click.option("--filter", "keys", multiple=True, metavar="KEY=VALUE", help="until, label, label! or dangling.")
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@as_json_option
@click.pass_obj
def prune(
    where: Where,
    filters: tuple[str, ...],
    everything: bool,
    force: bool,
    keys: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove images without a tag that no container uses; with --all those with tags, or that match one of FILTERS."""
    from windlass_client import asking

    wanted = asking.filters(keys, ("until", "label", "label!", "dangling"))
    everything = everything or bool(filters) or "false" in wanted.get("dangling", ())
    what = "all images without at least one container associated to them" if everything else "all dangling images"
    asking.confirm(force or dry_run, f"This will remove {what}.", "image prune")
    asyncio.run(_prune(where, filters, wanted, everything, dry_run, as_json))


async def _prune(
    where: Where, filters: tuple[str, ...], wanted: Filters, everything: bool, dry_run: bool, as_json: bool
) -> None:
    from windlass_client import imageremoval

    async with where.client() as client:
        chosen = await imageremoval.unused(client, filters, wanted, everything)
        if dry_run:
            names([each.name for each in chosen], as_json)
            return
        removed, freed = await imageremoval.prune(client, chosen)
    if as_json:
        names([name for each in removed for name in each.names], as_json)
        return
    print_pruned(removed, freed)


def print_pruned(removed: list[Removed], freed: int) -> None:
    """Print what a prune has removed."""
    from windlass_client import format

    print_removed(removed)
    click.echo(f"Total reclaimed space: {format.size(freed)}")


def print_removed(removed: list[Removed]) -> None:
    """Print the images that are gone."""
    if removed:
        click.echo("Deleted Images:")
        _print(removed)
        click.echo()
