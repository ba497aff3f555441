"""`windlass image`: import, export and convert."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from windlass_client import output
from windlass_client.cli import Where
from windlass_client.commands.images import as_json_option, platform_options, quiet_option, wanted_platforms

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

    with _replaced(archive) as file:
        exported = asyncio.run(work(file))
    if as_json:
        output.document(
            {"archive": archive, "images": list(exported.images), "blobs": exported.blobs, "size": exported.size}
        )
    elif archive != "-":
        click.echo(f"exported {archive} ({output.size(exported.size)})")


@contextmanager
def _replaced(path: str) -> Iterator[IO[bytes]]:
    """Give a file that takes its name only when it is whole."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if Path(path).exists() and not Path(path).is_file():
        with Path(path).open("wb") as file:
            yield file
        return
    directory = Path(path).absolute().parent
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".windlass-export-", delete=False) as file:
        try:
            yield file.file
            file.flush()
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(file.fileno(), 0o666 & ~umask)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


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
