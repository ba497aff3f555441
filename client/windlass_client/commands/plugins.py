"""`windlass plugins`: ls, graph, why, top, new, check."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TextIO

import click

from windlass_client import output, plugingraph
from windlass_client.cli import Group, Where
from windlass_client.plugingraph import Node


@click.group(cls=Group)
def plugins() -> None:
    """Show the daemon's plugins."""


async def _nodes(where: Where) -> list[Node]:
    async with where.client() as client:
        found = await client.introspection.plugins()
    return [
        Node(
            plugin.type,
            plugin.id,
            tuple(plugin.requires),
            (plugin.init_err.message or "it did not start") if plugin.HasField("init_err") else "",
            tuple(plugin.capabilities),
            dict(plugin.exports),
        )
        for plugin in found
    ]


@plugins.command()
@click.option("-l", "--long", "detailed", is_flag=True, help="Say why a plugin did not start.")
@click.option("-q", "--quiet", is_flag=True, help="Print URIs only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def ls(where: Where, detailed: bool, quiet: bool, as_json: bool) -> None:
    """List plugins in the order they started."""
    nodes = asyncio.run(_nodes(where))
    if quiet:
        for node in nodes:
            click.echo(node.uri)
        return
    records = [
        {
            "type": node.type,
            "id": node.id,
            "status": node.state,
            "requires": list(node.requires),
            "capabilities": list(node.capabilities),
            "exports": dict(node.exports),
            "message": node.message,
        }
        for node in nodes
    ]
    output.rows(records, ("type", "id", "status", *(["message"] if detailed else [])), as_json)


@plugins.command()
@click.option("--format", "form", type=click.Choice(["tree", "dot", "svg"]), default="tree", show_default=True)
@click.option(
    "-o", "--output", "file", type=click.File("w", lazy=True), default="-", help="File instead of standard output."
)
@click.pass_obj
def graph(where: Where, form: str, file: TextIO) -> None:
    """Draw who requires whom."""
    kinds = plugingraph.kinds(asyncio.run(_nodes(where)))
    if form == "tree":
        text = plugingraph.tree(kinds)
    elif form == "dot":
        text = plugingraph.dot(kinds)
    else:
        from windlass_client.graphsvg import svg

        text = svg(kinds)
    file.write(text)


@plugins.command()
@click.argument("uri", metavar="URI|ID|TYPE")
@click.pass_obj
def why(where: Where, uri: str) -> int:
    """Explain why a plugin, or every plugin of a type, is missing."""
    reason = plugingraph.why(asyncio.run(_nodes(where)), uri)
    for depth, step in enumerate(reason.chain):
        lead = "   " * (depth - 1) + "└─ " if depth else ""
        message = f": {output.printable(step.message)}" if step.message else ""
        verb = "has" if step.state == plugingraph.FAILED else "is"
        sys.stdout.write(f"{lead}{step.name} {verb} {step.state}{message}\n")
    if reason.remedy:
        sys.stdout.write(f"remedy: {reason.remedy}\n")
    return 0 if reason.chain[-1].state == plugingraph.OK else 1


@plugins.command()
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds.")
@click.option("--no-stream", is_flag=True, help="Print one table, of the first interval, and end.")
@click.option("--methods", is_flag=True, help="Give each method a line.")
@click.option("--all", "every", is_flag=True, help="Show plugins without a call too.")
@click.option("--sort", type=click.Choice(["calls", "time", "errors", "name"]), default="time", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one list for each interval.")
@click.pass_obj
def top(where: Where, interval: float, no_stream: bool, methods: bool, every: bool, sort: str, as_json: bool) -> None:
    """Show what plugins are doing: calls a second, their time, errors, and the state of breakers.

    Only windlassd counts these; with containerd the command says so and fails.
    """
    import time

    from windlass_client import plugintop

    async def work() -> None:
        async with where.client() as client:
            before, begun = await plugintop.look(client), time.monotonic()
            while True:
                await asyncio.sleep(interval)
                after, now = await plugintop.look(client), time.monotonic()
                found = plugintop.rows(before, after, now - begun, methods, every, sort)
                if sys.stdout.isatty() and not no_stream:
                    sys.stdout.write("\033[H\033[2J")
                columns = plugintop.WITH_METHODS if methods else plugintop.COLUMNS
                output.rows([row.to_json(methods) for row in found], columns, as_json)
                sys.stdout.flush()
                if no_stream:
                    return
                before, begun = after, now

    asyncio.run(work())


@plugins.command()
@click.argument("type", metavar="TYPE")
@click.argument("name", metavar="NAME")
@click.option(
    "-d", "--directory", type=click.Path(path_type=Path), default=".", help="Where the package's directory is made."
)
def new(type: str, name: str, directory: Path) -> None:
    """Write a package with a plugin that works, and its tests.

    TYPE is snapshotter, content, differ, metadata, events, runtime, sandbox, mount-handler, hook or verifier, or the
    URI of such a plugin type. NAME is the plugin's ID and the package's name. No daemon has to run.
    """
    from windlass_client.scaffold.kinds import kind_of
    from windlass_client.scaffold.write import write

    kind = kind_of(type)
    made = write(kind, name, directory)
    click.echo(f"{made}: {kind.uri}.{name}, which {kind.purpose}")
    click.echo(f"next: pip install -e '{made}[test]' && windlass plugins check {made}")


@plugins.command()
@click.argument("package", metavar="PATH|DISTRIBUTION")
@click.option("--suite/--no-suite", default=True, show_default=True, help="Run the suite of the plugin's contract.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(package: str, suite: bool, as_json: bool) -> int:
    """Check the plugins of a package: import, contract, start and stop, behaviour, and the suite of the contract.

    Each plugin is started in a process of its own, in scratch directories, with what it requires. The exit code is 1 if
    a check fails. No daemon has to run.
    """
    from windlass_client.plugincheck import result, run, target

    found = [each.to_json() for each in run.check(target.find(package), suite)]
    output.rows(found, ("plugin", "check", "result", "detail"), as_json)
    return 1 if any(each["result"] == result.FAILED for each in found) else 0
