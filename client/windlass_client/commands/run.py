"""`windlass run` and `windlass create`."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import click

from windlass_client.cli import ProcessCommand, Where
from windlass_client.commands.run_options import RunOptions, launch_options, run_options

if TYPE_CHECKING:
    from typing import Unpack

    from windlass_client.client import Client
    from windlass_client.launch import LaunchOptions
    from windlass_client.lifecycle.attaching import Attachment
    from windlass_local.launch import Launched


@click.command(cls=ProcessCommand, context_settings={"allow_interspersed_args": False, "help_option_names": ["--help"]})
@click.argument("image")
@click.argument("arguments", nargs=-1)
@click.option("-d", "--detach", is_flag=True, help="Print the container's ID and leave it running.")
@click.option("--detach-keys", default="", metavar="KEYS", help="Keys that leave the container: ctrl-p,ctrl-q.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the process.")
@run_options
@click.pass_obj
def run(where: Where, /, detach: bool, detach_keys: str, sig_proxy: bool, **options: Unpack[RunOptions]) -> int:
    """Run ARGUMENTS, or what IMAGE says, in a new container; the exit code is the container's."""
    from windlass_client import detachkeys
    from windlass_client.lifecycle.attaching import Attachment

    if options["log_uri"] and not detach:
        raise click.UsageError("--log-uri needs -d")
    check_terminal(options["tty"], options["interactive"], detach)
    wanted = launch_options(where, options, detach)
    how = None if detach else Attachment(options["interactive"], detachkeys.parse(detach_keys), sig_proxy)
    return asyncio.run(_run(where, wanted, options, how))


@click.command(cls=ProcessCommand, context_settings={"allow_interspersed_args": False, "help_option_names": ["--help"]})
@click.argument("image")
@click.argument("arguments", nargs=-1)
@run_options
@click.pass_obj
def create(where: Where, /, **options: Unpack[RunOptions]) -> int:
    """Create a container without starting it, and print its ID."""
    wanted = launch_options(where, options, detach=False)

    async def work() -> int:
        async with where.client() as client:
            launched = await _create(client, wanted, options)
        click.echo(launched.container.id)
        return 0

    return asyncio.run(work())


def check_terminal(tty: bool, interactive: bool, detach: bool) -> None:
    """Refuse a terminal as input where there is none."""
    if tty and interactive and not detach and not sys.stdin.isatty():
        raise click.UsageError("-t with -i needs a terminal as standard input; leave -t out")


async def _create(client: Client, wanted: LaunchOptions, options: RunOptions) -> Launched:
    from windlass_client import output
    from windlass_client.lifecycle import creation

    cidfile = _reserve(options["cidfile"])
    try:
        with output.progress(options["quiet"]) as show:
            launched = await creation.create(client, wanted, options["pull"], show)
    except BaseException:
        if cidfile >= 0:
            os.unlink(options["cidfile"])  # noqa: PTH108
            os.close(cidfile)
        raise
    if cidfile >= 0:
        os.write(cidfile, launched.container.id.encode())
        os.close(cidfile)
    return launched


def _reserve(path: str) -> int:
    """Make the file for the ID, before there is one: a file of an earlier container is not overwritten."""
    if not path:
        return -1
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        from windlass.errors import AlreadyExists

        raise AlreadyExists(f"file {path} of --cidfile exists; remove it or name another") from None


async def _run(where: Where, wanted: LaunchOptions, options: RunOptions, how: Attachment | None) -> int:
    from windlass_client.lifecycle import creation

    async with where.client() as client:
        launched = await _create(client, wanted, options)
        status = await creation.run(client, launched, how)
        if how is None:
            click.echo(launched.container.id)
        return status or 0
