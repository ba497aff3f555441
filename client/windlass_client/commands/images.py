"""`windlass image`: the group, and what only looks at the parts of images."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import click

from windlass_client import output
from windlass_client.cli import Commands, Where

if TYPE_CHECKING:
    from windlass.contracts.values import Platform
    from windlass_images.survey import Node
    from windlass_images.upkeep import Condition

F = TypeVar("F", bound=Callable[..., object])

COMMANDS: Mapping[str, str] = {
    "pull": "transfers:pull",
    "push": "transfers:push",
    "import": "archives:import_",
    "export": "archives:export",
    "convert": "archives:convert",
    "mount": "imagemounts:mount",
    "unmount": "imagemounts:unmount",
    "ls": "imagelists:ls",
    "list": "imagelists:ls",
    "inspect": "imagelists:inspect",
    "history": "imagelists:history",
    "save": "archives:save",
    "load": "archives:load",
    "build": "build:build",
    "tree": "images:tree",
    "check": "images:check",
    "tag": "imagenames:tag",
    "rm": "imagenames:rm",
    "prune": "imagenames:prune",
    "sign-policy": "signpolicy:sign_policy",
}


@click.group(cls=Commands, table=COMMANDS)
def image() -> None:
    """Bring images here and elsewhere, and look after them."""


def platform_options(default: str) -> Callable[[F], F]:
    """Add --platform and --all-platforms; ``default`` says what is done without them."""

    def add(function: F) -> F:
        everything = click.option("--all-platforms", is_flag=True, help="Every platform.")
        some = click.option(
            "--platform",
            "platform",
            multiple=True,
            metavar="OS/ARCH",
            help=f"Only this platform, several in order of preference; {default} otherwise.",
        )
        return some(everything(function))

    return add


def wanted_platforms(
    platform: tuple[str, ...], all_platforms: bool, default: Platform | None
) -> tuple[Platform, ...] | None:
    """Return what the options of `platform_options` mean."""
    from windlass_images import platforms

    if platform and all_platforms:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    if platform:
        return tuple(map(platforms.parse, platform))
    return None if all_platforms or default is None else (default,)


as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print names only.")


def names(found: list[str], as_json: bool, verb: str = "") -> None:
    """Print the names that a command has worked on, one a line or as a JSON list."""
    if as_json:
        output.document([{"name": name} for name in found])
        return
    for name in found:
        click.echo(f"{verb} {output.printable(name)}".strip())


@image.command()
@click.argument("filters", nargs=-1)
@platform_options("what this machine runs")
@click.option("--snapshotter", default="", help="Snapshotter that the layers should be unpacked with.")
@quiet_option
@as_json_option
@click.pass_obj
def check(
    where: Where,
    filters: tuple[str, ...],
    platform: tuple[str, ...],
    all_platforms: bool,
    snapshotter: str,
    quiet: bool,
    as_json: bool,
) -> int:
    """Show which images are complete and unpacked, and their size; the exit code is 1 if one lacks something."""

    async def work() -> list[Condition]:
        from windlass_client.namespaces import SNAPSHOTTER
        from windlass_client.store import ClientStore
        from windlass_images import platforms, upkeep

        wanted = wanted_platforms(platform, all_platforms, platforms.host())
        async with where.client() as client:
            store = ClientStore(client)
            chosen = await client.namespaces.default(SNAPSHOTTER, snapshotter)
            return [await upkeep.check(store, found, chosen, wanted) for found in await store.images.list(*filters)]

    found = asyncio.run(work())
    if quiet:
        names([each.name for each in found if each.status == "complete"], False)
    else:
        output.rows([_condition(each, as_json) for each in found], CONDITION, as_json)
    return int(any(each.status in ("incomplete", "damaged") for each in found))


CONDITION = ("name", "status", "blobs", "size", "unpacked", "snapshots", "missing", "error")


def _condition(each: Condition, as_json: bool) -> dict[str, object]:
    missing = [target.digest for target in each.missing]
    record: dict[str, object] = {"name": each.name, "status": each.status, "missing": missing, "error": each.error}
    if as_json:
        return record | {
            "digest": each.digest,
            "required": each.required,
            "size": each.size,
            "unpacked": each.unpacked,
            "usage": {"content": each.usage.content, "snapshots": each.usage.snapshots},
        }
    return record | {
        "blobs": f"{each.required - len(missing)}/{each.required}",
        "size": f"{output.size(each.usage.content)}/{output.size(each.size)}",
        "unpacked": "yes" if each.unpacked else "no",
        "snapshots": output.size(each.usage.snapshots),
    }


@image.command()
@click.argument("name", metavar="IMAGE")
@platform_options("everything")
@as_json_option
@click.pass_obj
def tree(where: Where, name: str, platform: tuple[str, ...], all_platforms: bool, as_json: bool) -> None:
    """Show what IMAGE consists of, with sizes, annotations, and what refers to it."""
    from windlass_client import imagetrees

    async def work() -> Node:
        from windlass_client.store import ClientStore
        from windlass_images.survey import survey

        async with where.client() as client:
            return await survey(ClientStore(client), name, wanted_platforms(platform, all_platforms, None))

    root = asyncio.run(work())
    if as_json:
        output.document({"name": name, **imagetrees.record(root)})
    else:
        for line in [output.printable(name), *imagetrees.lines(root)]:
            click.echo(line)
