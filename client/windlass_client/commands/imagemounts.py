"""`windlass image`: mount and unmount."""

from __future__ import annotations

import asyncio

import click

from windlass_client import output
from windlass_client.cli import Where
from windlass_client.commands.images import as_json_option


@click.command()
@click.argument("image", required=False)
@click.argument("directory", required=False)
@click.option("--platform", default="", metavar="OS/ARCH", help="Mount this platform instead of the machine's.")
@click.option("--snapshotter", default="", help="Snapshotter that the layers are unpacked with.")
@click.option("--suid", is_flag=True, help="Let its set-user-ID programs act as their owners.")
@click.option("--dev", is_flag=True, help="Let its device files be devices.")
@click.option("--rw", "writable", is_flag=True, help="Let it be written to; all of that is gone when it is unmounted.")
@as_json_option
@click.pass_obj
def mount(
    where: Where,
    image: str | None,
    directory: str | None,
    platform: str,
    snapshotter: str,
    writable: bool,
    suid: bool,
    dev: bool,
    as_json: bool,
) -> None:
    """Mount the root file system of IMAGE on an empty DIRECTORY; without both, list what is mounted."""
    if image and not directory:
        raise click.UsageError("say where: windlass image mount IMAGE DIRECTORY")

    async def work() -> None:
        from windlass_client import imagemount
        from windlass_client.namespaces import SNAPSHOTTER
        from windlass_images import platforms

        async with where.client() as client:
            if not image or not directory:
                found = await imagemount.mounted_images(client)
                records = [{"image": each.image, "directory": each.target} for each in found]
                output.rows(records, ("image", "directory"), as_json)
                return
            wanted = platforms.parse(platform) if platform else platforms.host()
            chosen = await client.namespaces.default(SNAPSHOTTER, snapshotter)
            options = ("suid" if suid else "nosuid", "dev" if dev else "nodev")
            made = await imagemount.mount(client, image, directory, wanted, chosen, writable, options)
        if imagemount.reachable(made.target):
            click.echo(f"windlass: warning: {_warning(made.target, suid or dev)}", err=True)
        if as_json:
            output.document({"image": made.image, "directory": made.target})
        else:
            click.echo(output.printable(made.target))

    asyncio.run(work())


def _warning(target: str, dangerous: bool) -> str:
    more = ", run its set-user-ID programs and open its devices" if dangerous else ""
    remedy = "mount it below a directory with mode 0700 to prevent that"
    return f"other users can read the image at {output.printable(target)}{more}; {remedy}"


@click.command()
@click.argument("directories", nargs=-1, required=True)
@as_json_option
@click.pass_obj
def unmount(where: Where, directories: tuple[str, ...], as_json: bool) -> None:
    """Unmount images from DIRECTORIES, and remove what was made for that."""

    async def work() -> None:
        from windlass_client import imagemount

        async with where.client() as client:
            gone = [await imagemount.unmount(client, directory) for directory in directories]
        if as_json:
            output.document([{"image": each.image, "directory": each.target} for each in gone])
        else:
            for each in gone:
                click.echo(output.printable(each.target))

    asyncio.run(work())
