"""`windlass compose` start, stop, restart, kill, rm, exec and run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from windlass_client.cli import ProcessCommand

if TYPE_CHECKING:
    from typing import Unpack

    from windlass_client.compose.chosen import Chosen
    from windlass_client.compose.processes import ExecRequest, RunRequest


@click.command()
@click.argument("services", nargs=-1)
@click.pass_obj
def start(chosen: Chosen, services: tuple[str, ...]) -> None:
    """Start the containers of SERVICES, or all, that do not run."""
    from windlass_client.compose.controlling import start as begin

    asyncio.run(begin(chosen, services))


@click.command()
@click.argument("services", nargs=-1)
@click.option("-t", "--timeout", type=float, default=None, help="Seconds from stopping a container to killing it.")
@click.pass_obj
def stop(chosen: Chosen, services: tuple[str, ...], timeout: float | None) -> None:
    """Stop the containers of SERVICES, or all."""
    from windlass_client.compose.controlling import stop as end

    asyncio.run(end(chosen, services, timeout))


@click.command()
@click.argument("services", nargs=-1)
@click.option("-t", "--timeout", type=float, default=None, help="Seconds from stopping a container to killing it.")
@click.option("--no-deps", is_flag=True, help="Leave alone what asks to be restarted with them.")
@click.pass_obj
def restart(chosen: Chosen, services: tuple[str, ...], timeout: float | None, no_deps: bool) -> None:
    """Stop and start the containers of SERVICES, or all."""
    from windlass_client.compose.controlling import restart as again

    asyncio.run(again(chosen, services, timeout, no_deps))


@click.command()
@click.argument("services", nargs=-1)
@click.option("-s", "--signal", "name", default="SIGKILL", show_default=True, help="Name or number.")
@click.pass_obj
def kill(chosen: Chosen, services: tuple[str, ...], name: str) -> None:
    """Send a signal to the containers of SERVICES, or to all."""
    from windlass_client.compose.controlling import kill as send

    asyncio.run(send(chosen, services, name))


@click.command()
@click.argument("services", nargs=-1)
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("-s", "--stop", "stop_first", is_flag=True, help="Stop them first.")
@click.option("-v", "--volumes", is_flag=True, help="Remove volumes without a name, too.")
@click.pass_obj
def rm(chosen: Chosen, services: tuple[str, ...], force: bool, stop_first: bool, volumes: bool) -> None:
    """Remove the containers of SERVICES, or all, that do not run."""
    from windlass_client.compose.controlling import remove

    asyncio.run(remove(chosen, services, force, stop_first, volumes))


@click.command("exec", cls=ProcessCommand, context_settings={"allow_interspersed_args": False})
@click.argument("service")
@click.argument("arguments", nargs=-1, required=True)
@click.option("-d", "--detach", is_flag=True, help="Leave it running.")
@click.option("-T", "--no-tty", "no_terminal", is_flag=True, help="Give it no terminal, which it has on a terminal.")
@click.option("--index", type=int, default=1, show_default=True, help="Which of the service's containers.")
@click.option("-e", "--env", multiple=True, metavar="KEY=VALUE", help="Set a variable.")
@click.option("-u", "--user", default="", help="Run as this user.")
@click.option("-w", "--workdir", "cwd", default="", metavar="DIR", help="Start in a directory of the container.")
@click.pass_obj
def exec_(chosen: Chosen, /, **request: Unpack[ExecRequest]) -> int:
    """Run ARGUMENTS in a container of SERVICE; the exit code is theirs."""
    from windlass_client.compose.processes import run_exec

    return asyncio.run(run_exec(chosen, request))


@click.command(cls=ProcessCommand, context_settings={"allow_interspersed_args": False})
@click.argument("service")
@click.argument("arguments", nargs=-1)
@click.option("--rm", "remove", is_flag=True, help="Remove the container when it has ended.")
@click.option("-d", "--detach", is_flag=True, help="Print the container's name and leave it running.")
@click.option("-T", "--no-tty", "no_terminal", is_flag=True, help="Give it no terminal, which it has on a terminal.")
@click.option("--no-deps", is_flag=True, help="Do not start what the service depends on.")
@click.option("--name", default="", help="Name of the container; one is made up otherwise.")
@click.option("--entrypoint", default=None, help="Run this instead of the entrypoint.")
@click.option("-e", "--env", multiple=True, metavar="KEY=VALUE", help="Set a variable.")
@click.option("-l", "--label", multiple=True, metavar="KEY=VALUE", help="Label the container.")
@click.option("-u", "--user", default="", help="Run as this user.")
@click.option("-w", "--workdir", "cwd", default="", metavar="DIR", help="Start in a directory of the container.")
@click.option("-p", "--publish", multiple=True, metavar="HOST:PORT", help="Publish a port.")
@click.option("-P", "--service-ports", is_flag=True, help="Publish the service's ports.")
@click.option("-v", "--volume", multiple=True, metavar="SOURCE:TARGET", help="Mount a volume or a directory.")
@click.pass_obj
def run(chosen: Chosen, /, **request: Unpack[RunRequest]) -> int:
    """Run ARGUMENTS, or what SERVICE says, in a new container of the service; the exit code is the container's."""
    from windlass_client.compose.processes import run_one_off

    return asyncio.run(run_one_off(chosen, request))
