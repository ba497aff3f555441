"""`windlass build`: hands a Dockerfile to a running buildkitd."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypedDict

import click

from windlass_client.cli import Where

if TYPE_CHECKING:
    from typing import Unpack


class BuildOptions(TypedDict):
    """The options and the argument of `windlass build`."""

    context: str
    file: str
    names: tuple[str, ...]
    arguments: tuple[str, ...]
    labels: tuple[str, ...]
    target: str
    platforms: tuple[str, ...]
    secrets: tuple[str, ...]
    no_cache: bool
    pull: bool
    quiet: bool
    progress: str
    host: str


@click.command()
@click.argument("context", metavar="PATH|-")
@click.option("-f", "--file", default="", metavar="FILE", help="The Dockerfile; PATH/Dockerfile otherwise.")
@click.option("-t", "--tag", "names", multiple=True, metavar="NAME[:TAG]", help="Name of the image.")
@click.option("--build-arg", "arguments", multiple=True, metavar="KEY[=VALUE]", help="Set an ARG.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Label the image.")
@click.option("--target", default="", metavar="STAGE", help="Build up to this stage.")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH", help="Build for this platform.")
@click.option(
    "--secret", "secrets", multiple=True, metavar="id=…,src=…", help="Let RUN --mount=type=secret see a file."
)
@click.option("--no-cache", is_flag=True, help="Take no step from earlier builds.")
@click.option("--pull", is_flag=True, help="Ask registries for newer images.")
@click.option("-q", "--quiet", is_flag=True, help="Print the image's ID only.")
@click.option("--progress", type=click.Choice(["auto", "plain", "tty"]), default="auto", help="How buildctl shows it.")
@click.option("--buildkit-host", "host", default="", metavar="ADDRESS", help="buildkitd; BUILDKIT_HOST otherwise.")
@click.pass_obj
def build(where: Where, /, **options: Unpack[BuildOptions]) -> None:
    """Build an image of the Dockerfile in directory PATH; - is a Dockerfile on standard input. Needs a buildkitd."""
    from windlass_client import building, output
    from windlass_client.shortnames import familiar

    async def work() -> tuple[str, list[str]]:
        async with where.client() as client:
            return await building.build(client, building.Wanted(**options))

    id, found = asyncio.run(work())
    if options["quiet"]:
        click.echo(id)
        return
    for name in found:
        click.echo(f"built {output.printable(familiar(name))} {id}")
