"""`windlass start`, stop, restart, kill, wait, rm, rename and attach."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from windlass_client.cli import ProcessCommand, Where

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client

names_argument = click.argument("containers", nargs=-1, required=True)
detach_option = click.option("--detach-keys", default="", metavar="KEYS", help="Keys that leave it: ctrl-p,ctrl-q.")
proxy_option = click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the process.")


def each(where: Where, words: tuple[str, ...], step: Callable[[Client, Container], Awaitable[object]]) -> int:
    """Do a step for each container, print its name as typed, and go on after a failure."""

    async def work() -> int:
        from windlass_client import listing, lookup

        async with where.client() as client:

            async def one(word: str) -> None:
                await step(client, await lookup.container(client, word))

            return await listing.each(words, one)

    return asyncio.run(work())


@click.command(cls=ProcessCommand)
@names_argument
@click.option("-a", "--attach", is_flag=True, help="Show its output, and exit with its exit code.")
@click.option("-i", "--interactive", is_flag=True, help="Connect standard input; implies -a.")
@detach_option
@proxy_option
@click.pass_obj
def start(
    where: Where, containers: tuple[str, ...], attach: bool, interactive: bool, detach_keys: str, sig_proxy: bool
) -> int:
    """Start CONTAINERS that do not run."""
    if not (attach or interactive):
        from windlass_client.lifecycle.starting import start as begin
        from windlass_client.namespace import from_message

        return each(where, containers, lambda client, container: begin(client, from_message(container)))
    if len(containers) > 1:
        raise click.UsageError("-a and -i take one container")
    return asyncio.run(_start_attached(where, containers[0], interactive, detach_keys, sig_proxy))


async def _start_attached(where: Where, word: str, interactive: bool, keys: str, proxy: bool) -> int:
    from windlass_client import detachkeys, lookup
    from windlass_client.lifecycle import asked, removal, starting
    from windlass_client.lifecycle.attaching import Attachment
    from windlass_client.namespace import from_message

    how = Attachment(interactive, detachkeys.parse(keys), proxy)
    async with where.client() as client:
        container = from_message(await lookup.container(client, word))
        status = await starting.start_attached(client, container, how)
        if status is not None and asked.of(container).remove:
            await removal.remove_ended(client, container.id)
    return status or 0


@click.command(cls=ProcessCommand)
@click.argument("container")
@click.option("--no-stdin", is_flag=True, help="Leave our standard input alone.")
@detach_option
@proxy_option
@click.pass_obj
def attach(where: Where, container: str, no_stdin: bool, detach_keys: str, sig_proxy: bool) -> int:
    """Show what CONTAINER writes from now on, and give it what is typed; exit with its exit code."""

    async def work() -> int:
        from windlass_client import detachkeys, lookup
        from windlass_client.lifecycle import starting
        from windlass_client.lifecycle.attaching import Attachment
        from windlass_client.namespace import from_message

        how = Attachment(not no_stdin, detachkeys.parse(detach_keys), sig_proxy, begin=False)
        async with where.client() as client:
            found = from_message(await lookup.container(client, container))
            return await starting.attach(client, found, how) or 0

    return asyncio.run(work())


@click.command()
@names_argument
@click.option("-t", "--time", "--timeout", "timeout", type=float, default=None, help="Seconds until it is killed; 10.")
@click.option("-s", "--signal", "name", default="", help="Send this first; the container's own stop signal otherwise.")
@click.pass_obj
def stop(where: Where, containers: tuple[str, ...], timeout: float | None, name: str) -> int:
    """Stop CONTAINERS: ask them to end, and kill them if they do not."""
    from windlass_client.lifecycle.stopping import stop as end

    return each(where, containers, lambda client, container: end(client, container, timeout, name))


@click.command()
@names_argument
@click.option("-t", "--time", "--timeout", "timeout", type=float, default=None, help="Seconds until it is killed; 10.")
@click.option("-s", "--signal", "name", default="", help="Send this first; the container's own stop signal otherwise.")
@click.pass_obj
def restart(where: Where, containers: tuple[str, ...], timeout: float | None, name: str) -> int:
    """Stop CONTAINERS and start them again."""

    async def step(client: Client, container: Container) -> None:
        from windlass_client.lifecycle import starting, stopping
        from windlass_client.namespace import from_message

        await stopping.stop(client, container, timeout, name)
        await starting.start(client, from_message(container))

    return each(where, containers, step)


@click.command()
@names_argument
@click.option("-s", "--signal", "name", default="SIGKILL", show_default=True, help="Name or number.")
@click.option("--exec-id", default="", help="Signal this process instead of the first.")
@click.option("-a", "--all", "everybody", is_flag=True, help="Signal every process of the container.")
@click.pass_obj
def kill(where: Where, containers: tuple[str, ...], name: str, exec_id: str, everybody: bool) -> int:
    """Kill CONTAINERS, or send them another signal."""
    from windlass.errors import InvalidArgument
    from windlass_client.lifecycle import stopping

    try:
        number = stopping.signal_number(name)
    except InvalidArgument as error:
        raise click.BadParameter(str(error), param_hint="--signal") from None
    return each(
        where, containers, lambda client, container: stopping.kill(client, container, number, exec_id, everybody)
    )


@click.command()
@names_argument
@click.pass_obj
def wait(where: Where, containers: tuple[str, ...]) -> int:
    """Wait until CONTAINERS have ended, and print their exit codes."""

    async def work() -> int:
        from windlass.errors import Error
        from windlass_client import listing, lookup
        from windlass_client.lifecycle.waiting import exit_code

        code = 0
        async with where.client() as client:
            for word in containers:
                try:
                    click.echo(await exit_code(client, await lookup.container(client, word)))
                except Error as error:
                    listing.fail(error)
                    code = 1
        return code

    return asyncio.run(work())


@click.command()
@names_argument
@click.option("-f", "--force", is_flag=True, help="Kill what still runs, and do not mind what does not exist.")
@click.option("-v", "--volumes", is_flag=True, help="Remove its anonymous volumes, too.")
@click.pass_obj
def rm(where: Where, containers: tuple[str, ...], force: bool, volumes: bool) -> int:
    """Remove CONTAINERS with their snapshots and logs."""

    async def work() -> int:
        from windlass_client import listing, lookup
        from windlass_client.lifecycle.removal import remove

        async with where.client() as client:

            async def one(word: str) -> None:
                await remove(client, await lookup.container(client, word), force, volumes)

            return await listing.each(containers, one, force)

    return asyncio.run(work())


@click.command()
@click.argument("container")
@click.argument("name")
@click.pass_obj
def rename(where: Where, container: str, name: str) -> None:
    """Call CONTAINER by another NAME; its ID stays."""

    async def work() -> None:
        from windlass_client.lifecycle.renaming import rename as change

        async with where.client() as client:
            await change(client, where, container, name)

    asyncio.run(work())
