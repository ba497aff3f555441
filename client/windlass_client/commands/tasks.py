"""`windlass stats`, top, update, pause and unpause: containers while they run."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, TypedDict

import click

from windlass_client.cli import Where

if TYPE_CHECKING:
    from typing import Unpack

    from windlass_client.client import Client
    from windlass_client.stats.watch import Rows, Watch

HOME_AND_CLEAR = "\033[H\033[J"


@click.command()
@click.argument("containers", nargs=-1)
@click.option("-a", "--all", "everything", is_flag=True, help="Containers that do not run, too.")
@click.option("--no-stream", is_flag=True, help="Print once and return.")
@click.option("--no-trunc", is_flag=True, help="Print whole IDs.")
@click.option("--format", "form", default="", metavar="TEMPLATE", help="table, json, or a Go template.")
@click.pass_obj
def stats(
    where: Where, containers: tuple[str, ...], everything: bool, no_stream: bool, no_trunc: bool, form: str
) -> None:
    """Show what CONTAINERS use, or all that run, every second until ^C."""

    async def work() -> None:
        from windlass_client.stats.watch import Watch

        async with where.client() as client:
            watch = Watch(client, containers, everything, truncate=not no_trunc)
            if no_stream:
                _print_rows(await watch.once(), form)
            else:
                await _follow(watch, form)

    asyncio.run(work())


async def _follow(watch: Watch, form: str) -> None:
    async for rows in watch.rows():
        if sys.stdout.isatty():
            sys.stdout.write(HOME_AND_CLEAR)
        _print_rows(rows, form)
        sys.stdout.flush()


def _print_rows(rows: Rows, form: str) -> None:
    from windlass_client import format
    from windlass_client.stats.rows import COLUMNS

    format.rows(rows, COLUMNS, form)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("container")
@click.argument("arguments", nargs=-1, metavar="[PS OPTIONS]")
@click.pass_obj
def top(where: Where, container: str, arguments: tuple[str, ...]) -> None:
    """Show the processes of CONTAINER as `ps` of this machine does; its options may follow, -ef otherwise."""

    async def work() -> list[list[str]]:
        from windlass_client import processes

        async with where.client() as client:
            return await processes.top(client, container, arguments)

    from windlass_client import format

    format.table(asyncio.run(work()))


@click.command()
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def pause(where: Where, containers: tuple[str, ...]) -> int:
    """Freeze all processes of CONTAINERS."""
    return asyncio.run(_for_each(where, containers, freeze=True))


@click.command()
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def unpause(where: Where, containers: tuple[str, ...]) -> int:
    """Let frozen CONTAINERS go on."""
    return asyncio.run(_for_each(where, containers, freeze=False))


async def _for_each(where: Where, containers: tuple[str, ...], freeze: bool) -> int:
    from windlass_client import freezing, listing

    async with where.client() as client:

        async def work(word: str) -> None:
            await freezing.change(client, word, freeze)

        return await listing.each(containers, work)


class UpdateOptions(TypedDict):
    """The options of `windlass update`."""

    memory: str
    memory_reservation: str
    memory_swap: str
    cpus: float | None
    cpu_shares: int | None
    cpu_period: int | None
    cpu_quota: int | None
    cpuset_cpus: str
    cpuset_mems: str
    pids_limit: int | None
    restart: str


@click.command()
@click.argument("containers", nargs=-1, required=True)
@click.option("-m", "--memory", default="", metavar="64M", help="Limit memory.")
@click.option("--memory-reservation", default="", metavar="64M", help="Keep it below this when memory is scarce.")
@click.option("--memory-swap", default="", metavar="64M", help="Limit memory and swap together; -1 means no limit.")
@click.option("--cpus", type=float, default=None, help="Limit processor time; 1 is all of one processor.")
@click.option("-c", "--cpu-shares", type=int, default=None, help="Weight against other containers; 1024 is usual.")
@click.option("--cpu-period", type=int, default=None, help="Microseconds that the quota is for.")
@click.option("--cpu-quota", type=int, default=None, help="Microseconds of processor time in a period.")
@click.option("--cpuset-cpus", default="", metavar="0-3,5", help="Processors that it may use.")
@click.option("--cpuset-mems", default="", metavar="0,1", help="Memory nodes that it may use.")
@click.option("--pids-limit", type=int, default=None, help="Limit processes and threads; -1 means no limit.")
@click.option("--restart", default="", metavar="POLICY", help="no, always, unless-stopped or on-failure[:TIMES].")
@click.pass_obj
def update(where: Where, /, containers: tuple[str, ...], **options: Unpack[UpdateOptions]) -> int:
    """Change the limits of CONTAINERS, now and for their next start."""
    from windlass.errors import InvalidArgument

    if all(value in (None, "") for value in options.values()):
        raise InvalidArgument("say what is to change, such as --memory 64M; see `windlass update --help`")

    async def work() -> int:
        from windlass_client import listing

        async with where.client() as client:

            async def change(word: str) -> None:
                await _update(client, word, options)

            return await listing.each(containers, change)

    return asyncio.run(work())


async def _update(client: Client, word: str, options: UpdateOptions) -> None:
    from windlass_client import limits

    wanted = limits.Limits(
        options["memory"],
        options["memory_reservation"],
        options["memory_swap"],
        options["cpus"],
        options["cpu_shares"],
        options["cpu_period"],
        options["cpu_quota"],
        options["cpuset_cpus"],
        options["cpuset_mems"],
        options["pids_limit"],
    )
    await limits.update(client, word, wanted, options["restart"])
