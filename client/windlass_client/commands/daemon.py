"""`windlass version`, events and config."""

from __future__ import annotations

import asyncio
import json
import sys

import click

from windlass import __version__
from windlass_client.cli import Where


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def version(where: Where, as_json: bool) -> None:
    """Print the versions of this program and of the daemon."""

    async def work() -> None:
        async with where.client() as client:
            daemon, server = await asyncio.gather(client.version(), client.introspection.server())
        if as_json:
            ours = {"version": __version__}
            theirs = {"version": daemon.version, "revision": daemon.revision, "uuid": server.uuid, "pid": server.pid}
            click.echo(json.dumps({"client": ours, "daemon": theirs | {"address": where.address}}, indent=2))
            return
        click.echo(f"client   {__version__}")
        click.echo(f"daemon   {daemon.version} {daemon.revision}".rstrip())
        click.echo(f"uuid     {server.uuid}")
        click.echo(f"address  {where.address}")

    asyncio.run(work())


@click.command()
@click.argument("filters", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.pass_obj
def events(where: Where, filters: tuple[str, ...], as_json: bool) -> None:
    """Print what happens, in all namespaces, until interrupted; FILTERS such as 'topic~=^/tasks/'."""

    async def work() -> None:
        from windlass_client.events import decode
        from windlass_client.output import printable

        async with where.client() as client:
            async for envelope in client.events.subscribe(*filters):
                time = envelope.timestamp.ToJsonString()
                event = decode(envelope.event)
                if as_json:
                    record = {"time": time, "namespace": envelope.namespace, "topic": envelope.topic, "event": event}
                    sys.stdout.write(json.dumps(record) + "\n")
                else:
                    line = f"{time} {envelope.namespace} {envelope.topic} {json.dumps(event)}"
                    sys.stdout.write(printable(line) + "\n")
                sys.stdout.flush()

    asyncio.run(work())


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def config(arguments: tuple[str, ...]) -> int:
    """Print, check, dump or migrate the daemon's configuration file."""
    from windlass.config.commands import run

    try:
        return run(arguments, program="windlass")
    except SystemExit as leave:  # argparse's way to end
        return leave.code if isinstance(leave.code, int) else 1
