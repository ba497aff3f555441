"""`windlass container`: the commands about containers under docker's longer names, and prune."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import click

from windlass_client.cli import COMMANDS, Commands, Where

NAMES = (
    *("attach", "commit", "cp", "create", "diff", "exec", "export", "inspect", "kill", "logs", "pause", "port"),
    *("rename", "restart", "rm", "run", "start", "stats", "stop", "top", "unpause", "update", "wait"),
)
TABLE: Mapping[str, str] = {
    **{name: COMMANDS[name] for name in NAMES if name in COMMANDS},
    "ls": COMMANDS["ps"],
    "list": COMMANDS["ps"],
    "ps": COMMANDS["ps"],
    "prune": "management:prune",
}


@click.group(cls=Commands, table=TABLE)
def container() -> None:
    """Run containers, and look after them."""


@click.command()
@click.option("-f", "--force", is_flag=True, help="Ask no question.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="until, label or label!.")
@click.pass_obj
def prune(where: Where, force: bool, filters: tuple[str, ...]) -> None:
    """Remove all containers that do not run."""
    from windlass_client import asking, format

    wanted = asking.filters(filters, ("until", "label", "label!"))
    asking.confirm(force, "This will remove all stopped containers.", "container prune")

    async def work() -> tuple[list[str], int]:
        from windlass_client.system import pruning

        async with where.client() as client:
            return await pruning.containers(client, wanted)

    gone, freed = asyncio.run(work())
    if gone:
        click.echo("\n".join(["Deleted Containers:", *gone, ""]))
    click.echo(f"Total reclaimed space: {format.size(freed)}")
