"""`windlass image`: import, export and convert."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

import click

from windlass_client import output
from windlass_client.cli import Where
from windlass_client.commands.images import as_json_option, platform_options, quiet_option, wanted_platforms
from windlass_client.replacing import replaced

if TYPE_CHECKING:
    from windlass_images.converter import Converted
    from windlass_images.exporter import Exported
    from windlass_images.importer import Imported


@click.command("import")
@click.argument("archive")
@click.option("--name", default="", help="Name of the image, for an archive with one image.")
@click.option("--base-name", default="", help="Name that images with only a tag get, before the tag.")
@click.option("--index-name", default="", help="Name of the archive's whole index.")
@platform_options("the machine's")
@click.option("--snapshotter", default="", help="Snapshotter that layers are unpacked with.")
@click.option("--no-unpack", is_flag=True, help="Leave the layers packed.")
@click.option("--compress-blobs", is_flag=True, help="Compress layers that come from `docker save` uncompressed.")
@quiet_option
@as_json_option
@click.pass_obj
def import_(
    where: Where,
    archive: str,
    name: str,
    base_name: str,
    index_name: str,
    platform: tuple[str, ...],
    all_platforms: bool,
    snapshotter: str,
    no_unpack: bool,
    compress_blobs: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Import ARCHIVE: a tar of an OCI layout or of `docker save`, a directory with a layout, - for stdin."""

    async def work() -> None:
        from windlass_client.namespaces import SNAPSHOTTER
        from windlass_client.store import ClientStore
        from windlass_images import importer, platforms

        wanted = wanted_platforms(platform, all_platforms, platforms.host())
        async with where.client() as client:
            chosen = await client.namespaces.default(SNAPSHOTTER, snapshotter)
            options = importer.Options(
                name=name,
                base_name=base_name,
                platform=wanted,
                snapshotter=chosen,
                unpack=not no_unpack,
                index_name=index_name,
                compress=compress_blobs,
            )
            with output.progress(quiet or as_json) as show:
                images = await importer.load(ClientStore(client), archive, options, show)
        _print_imported(images, quiet, as_json)

    asyncio.run(work())


def _print_imported(images: Sequence[Imported], quiet: bool, as_json: bool) -> None:
    if as_json:
        output.document(
            [{"name": each.name, "digest": each.target.digest, "snapshots": list(each.chain_ids)} for each in images]
        )
        return
    for each in images:
        click.echo(output.printable(each.name) if quiet else f"imported {output.printable(each.name)}")


@click.command()
@click.argument("archive")
@click.argument("images", nargs=-1, required=True)
@platform_options("the machine's")
@click.option("--allow-missing", is_flag=True, help="Leave out what of the images is not here.")
@click.option("--skip-manifest-json", is_flag=True, help="Leave out what only docker needs.")
@click.option("--skip-non-distributable", is_flag=True, help="Leave out layers that may not be handed on.")
@as_json_option
@click.pass_obj
def export(
    where: Where,
    archive: str,
    images: tuple[str, ...],
    platform: tuple[str, ...],
    all_platforms: bool,
    allow_missing: bool,
    skip_manifest_json: bool,
    skip_non_distributable: bool,
    as_json: bool,
) -> None:
    """Export IMAGES to ARCHIVE, which docker, podman, skopeo and containerd read; - is standard output."""
    if archive == "-" and as_json:
        raise click.UsageError("--json and - both want standard output")
    if archive == "-" and sys.stdout.isatty():
        raise click.UsageError("an archive is not written to a terminal; redirect standard output")

    async def work(file: IO[bytes]) -> Exported:
        from windlass_client.store import ClientStore
        from windlass_images import exporter, platforms
        from windlass_images.pipes import FileWriter

        wanted = wanted_platforms(platform, all_platforms, platforms.host())
        options = exporter.Options(wanted, allow_missing, skip_manifest_json, skip_non_distributable)
        async with where.client() as client:
            with output.progress(as_json) as show:
                return await exporter.save(ClientStore(client), images, FileWriter(file), options, show)

    with replaced(archive) as file:
        exported = asyncio.run(work(file))
    if as_json:
        output.document(
            {"archive": archive, "images": list(exported.images), "blobs": exported.blobs, "size": exported.size}
        )
    elif archive != "-":
        click.echo(f"exported {archive} ({output.size(exported.size)})")


@click.command()
@click.argument("source")
@click.argument("target")
@click.option(
    "--to",
    "form",
    type=click.Choice(["gzip", "zstd", "uncompressed", "estargz"]),
    required=True,
    help="How the layers are packed.",
)
@platform_options("all that the image has")
@as_json_option
@click.pass_obj
def convert(
    where: Where, source: str, target: str, form: str, platform: tuple[str, ...], all_platforms: bool, as_json: bool
) -> None:
    """Make image TARGET of image SOURCE, with its layers packed in another way."""

    async def work() -> Converted:
        from windlass_client.store import ClientStore
        from windlass_images import converter
        from windlass_images.layers import Form

        options = converter.Options(Form(form), wanted_platforms(platform, all_platforms, None))
        async with where.client() as client:
            with output.progress(as_json) as show:
                return await converter.convert(ClientStore(client), source, target, options, show)

    made = asyncio.run(work())
    if as_json:
        output.document({"name": made.name, "digest": made.target.digest, "layers": dict(made.layers)})
    else:
        click.echo(f"converted {output.printable(made.name)} {made.target.digest}")


@click.command()
@click.argument("images", nargs=-1, required=True)
@click.option("-o", "--output", "archive", default="-", metavar="FILE", help="Write to a file, not standard output.")
@platform_options("the machine's")
@click.pass_context
def save(
    context: click.Context, images: tuple[str, ...], archive: str, platform: tuple[str, ...], all_platforms: bool
) -> None:
    """Write IMAGES as a tar archive, as `docker save` does; `windlass image export` has more options."""

    async def full_names() -> list[str]:
        from windlass_client import imagefinding

        async with context.obj.client() as client:
            return [(await imagefinding.find(client, name)).name for name in images]

    if archive == "-" and sys.stdout.isatty():
        raise click.UsageError("an archive is not written to a terminal; use -o FILE, or redirect standard output")
    context.invoke(
        export,
        archive=archive,
        images=tuple(asyncio.run(full_names())),
        platform=platform,
        all_platforms=all_platforms,
        allow_missing=False,
        skip_manifest_json=False,
        skip_non_distributable=False,
        as_json=False,
    )


@click.command()
@click.option("-i", "--input", "archive", default="-", metavar="FILE", help="Read a file, not standard input.")
@platform_options("the machine's")
@quiet_option
@click.pass_obj
def load(where: Where, archive: str, platform: tuple[str, ...], all_platforms: bool, quiet: bool) -> None:
    """Import the images of an archive, as `docker load` does; `windlass image import` has more options."""
    if archive == "-" and sys.stdin.isatty():
        raise click.UsageError("an archive is not read from a terminal; use -i FILE, or redirect standard input")

    async def work() -> None:
        from windlass_client import imageloading
        from windlass_client.shortnames import familiar
        from windlass_images import platforms

        wanted = wanted_platforms(platform, all_platforms, platforms.host())
        async with where.client() as client:
            with output.progress(quiet) as show:
                for name in await imageloading.load(client, archive, wanted, show):
                    click.echo(f"Loaded image: {output.printable(familiar(name))}")

    asyncio.run(work())
