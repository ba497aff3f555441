"""`windlass exec`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypedDict

import click

from windlass_client.cli import ProcessCommand, Where

if TYPE_CHECKING:
    from typing import Unpack


class ExecOptions(TypedDict):
    """The options and arguments of `windlass exec`."""

    container: str
    arguments: tuple[str, ...]
    detach: bool
    tty: bool
    interactive: bool
    env: tuple[str, ...]
    env_file: tuple[str, ...]
    user: str
    cwd: str
    privileged: bool
    exec_id: str
    fifo_dir: str
    detach_keys: str


@click.command(cls=ProcessCommand, context_settings={"allow_interspersed_args": False})
@click.argument("container")
@click.argument("arguments", nargs=-1, required=True)
@click.option("-d", "--detach", is_flag=True, help="Leave it running.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-i", "--interactive", is_flag=True, help="Connect standard input.")
@click.option("-e", "--env", multiple=True, metavar="KEY[=VALUE]", help="Set a variable; KEY alone takes ours.")
@click.option("--env-file", multiple=True, metavar="FILE", help="Set the variables of a file, one a line.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Run as this user, by name or number.")
@click.option("-w", "--workdir", "--cwd", "cwd", default="", metavar="DIR", help="Start in a directory of it.")
@click.option("--privileged", is_flag=True, help="Give it every capability.")
@click.option("--exec-id", default="", help="ID of the process; one is made up otherwise.")
@click.option("--fifo-dir", default="", help="Directory for the pipes between container and terminal.")
@click.option("--detach-keys", default="", metavar="KEYS", help="Keys that leave it: ctrl-p,ctrl-q.")
@click.pass_obj
def exec_(where: Where, /, **options: Unpack[ExecOptions]) -> int:
    """Run ARGUMENTS inside CONTAINER; the exit code is theirs."""
    from windlass_client import detachkeys
    from windlass_client.commands.run import check_terminal
    from windlass_client.commands.run_options import environment
    from windlass_client.lifecycle.executing import Wanted, execute

    check_terminal(options["tty"], options["interactive"], options["detach"])
    wanted = Wanted(
        options["arguments"],
        environment(options["env"], options["env_file"]),
        options["user"],
        options["cwd"],
        options["tty"],
        options["interactive"],
        options["privileged"],
        options["fifo_dir"],
        detachkeys.parse(options["detach_keys"]),
    )

    async def work() -> int:
        async with where.client() as client:
            status, exec_id = await execute(client, options["container"], wanted, options["exec_id"], options["detach"])
        if options["detach"]:
            click.echo(exec_id)
        return status

    return asyncio.run(work())
