"""The options of `run` and `create` for volumes, host directories and tmpfs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict, TypeVar

import click

if TYPE_CHECKING:
    from windlass_client.cli import Where
    from windlass_client.volumes.attach import VolumeOptions

F = TypeVar("F", bound=Callable[..., object])


class MountOptions(TypedDict):
    """What `volume_options` adds to a command."""

    volume: tuple[str, ...]
    mount: tuple[str, ...]
    tmpfs: tuple[str, ...]
    volumes_from: tuple[str, ...]


def volume_options(function: F) -> F:
    """Add -v, --mount, --tmpfs and --volumes-from."""
    options = (
        click.option(
            "-v",
            "--volume",
            multiple=True,
            metavar="NAME|PATH:DST[:ro]",
            help="Mount a volume, which is made if it is not there, or a directory or file of this machine.",
        ),
        click.option(
            "--mount",
            multiple=True,
            metavar="type=volume|bind|tmpfs,src=…,dst=…,ro",
            help="Mount a volume, a directory or file of this machine, or a tmpfs.",
        ),
        click.option("--tmpfs", multiple=True, metavar="DST[:OPTIONS]", help="Mount a tmpfs."),
        click.option(
            "--volumes-from", multiple=True, metavar="CONTAINER[:ro]", help="Mount what another container has mounted."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def wanted_mounts(where: Where, options: MountOptions) -> VolumeOptions:
    """Return what the options of `volume_options` mean. Raises InvalidArgument."""
    from windlass_client.datadir import DataDirectory
    from windlass_client.volumes.attach import VolumeOptions
    from windlass_client.volumes.options import parse_all

    wanted = parse_all(options["volume"], options["mount"], options["tmpfs"])
    return VolumeOptions(DataDirectory.of(where), wanted, options["volumes_from"])
