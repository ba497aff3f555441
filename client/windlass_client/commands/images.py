"""`windlass image`: import, ls, rm."""

from __future__ import annotations

import asyncio

import click

from windlass_client import output
from windlass_client.cli import Where
from windlass_client.commands.signpolicy import sign_policy


@click.group()
def image() -> None:
    """Import, list and remove images."""


image.add_command(sign_policy)


@image.command("import")
@click.argument("archive")
@click.option("--name", default="", help="Name of the image, for an archive with one image.")
@click.option("--base-name", default="", help="Name that images with only a tag get, before the tag.")
@click.option("--platform", default="", metavar="OS/ARCH", help="Import for this platform instead of the machine's.")
@click.option("--all-platforms", is_flag=True, help="Import every platform of an image.")
@click.option("--snapshotter", default="", help="Snapshotter that layers are unpacked with.")
@click.option("--no-unpack", is_flag=True, help="Leave the layers packed.")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def import_(
    where: Where,
    archive: str,
    name: str,
    base_name: str,
    platform: str,
    all_platforms: bool,
    snapshotter: str,
    no_unpack: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Import an image from ARCHIVE, a tar of an OCI layout or of `docker save`; - is standard input."""

    async def work() -> None:
        from windlass_client.namespaces import SNAPSHOTTER
        from windlass_client.store import ClientStore
        from windlass_images import importer, platforms

        async with where.client() as client:
            wanted = None if all_platforms else platforms.parse(platform) if platform else platforms.host()
            chosen = await client.namespaces.default(SNAPSHOTTER, snapshotter)
            options = importer.Options(name, base_name, wanted, chosen, not no_unpack)
            with output.progress(quiet or as_json) as show:
                images = await importer.load(ClientStore(client), archive, options, show)
        if as_json:
            records = [
                {"name": found.name, "digest": found.target.digest, "snapshots": list(found.chain_ids)}
                for found in images
            ]
            output.rows(records, (), True)
        else:
            for found in images:
                click.echo(output.printable(found.name) if quiet else f"imported {output.printable(found.name)}")

    asyncio.run(work())


@image.command()
@click.argument("filters", nargs=-1)
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def ls(where: Where, filters: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """List images, of FILTERS those that match one, such as name~=busybox."""

    async def work() -> None:
        async with where.client() as client:
            images = await client.images.list(*filters)
        if quiet:
            for found in images:
                click.echo(output.printable(found.name))
            return
        records = [
            {
                "name": found.name,
                "digest": found.target.digest,
                "type": found.target.media_type,
                "labels": dict(found.labels),
                "created": output.moment(found.created_at),
                "updated": output.moment(found.updated_at),
            }
            for found in images
        ]
        output.rows(records, ("name", "digest", "created"), as_json)

    asyncio.run(work())


@image.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--async", "later", is_flag=True, help="Leave its blobs and snapshots to the next garbage collection.")
@click.pass_obj
def rm(where: Where, names: tuple[str, ...], later: bool) -> None:
    """Remove images, and what only they need."""

    async def work() -> None:
        async with where.client() as client:
            for number, name in enumerate(names):
                await client.images.delete(name, sync=not later and number == len(names) - 1)
                click.echo(output.printable(name))

    asyncio.run(work())
