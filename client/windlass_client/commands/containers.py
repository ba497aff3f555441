"""`windlass run`, ps, exec, kill, rm and inspect."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from typing import TYPE_CHECKING

import click

from windlass_client import output
from windlass_client.cli import ProcessCommand, Where
from windlass_client.commands.network_options import network_options
from windlass_client.commands.volumeoptions import volume_options

if TYPE_CHECKING:
    from typing import Unpack

    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_api.containerd.v1.types.task_pb2 import Process
    from windlass_client.commands.run import ExecOptions, RunOptions


@click.command(cls=ProcessCommand, context_settings={"allow_interspersed_args": False})
@click.argument("image")
@click.argument("arguments", nargs=-1)
@click.option("--rm", "remove", is_flag=True, help="Remove the container when it has ended.")
@click.option("-d", "--detach", is_flag=True, help="Print the container's name and leave it running.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-i", "--interactive", is_flag=True, help="Connect standard input.")
@click.option("-e", "--env", multiple=True, metavar="KEY=VALUE", help="Set a variable; KEY alone removes it.")
@volume_options
@click.option("-m", "--memory", default="", metavar="64M", help="Limit memory.")
@click.option("--cpus", type=float, default=0, help="Limit processor time; 1 is all of one processor.")
@click.option("--pids-limit", type=int, default=0, help="Limit processes and threads; 0 means no limit.")
@click.option("--cap-add", multiple=True, metavar="NAME", help="Add a capability, or ALL.")
@click.option("--cap-drop", multiple=True, metavar="NAME", help="Take a capability, or ALL.")
@click.option(
    "--security-opt",
    multiple=True,
    metavar="KEY=VALUE",
    help="seccomp=FILE or unconfined, no-new-privileges=false, apparmor=PROFILE, systempaths=unconfined.",
)
@network_options
@click.option("--name", default="", help="Name of the container; one is made up otherwise.")
@click.option("--hostname", default="", help="Host name inside; the container's name otherwise.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Run as this user, by name or number.")
@click.option("-w", "--cwd", default="", metavar="DIR", help="Start in a directory of the container.")
@click.option("--entrypoint", default=None, help="Run this instead of the image's entrypoint.")
@click.option("-l", "--label", multiple=True, metavar="KEY=VALUE", help="Label the container.")
@click.option("--read-only", is_flag=True, help="Mount the root file system read-only.")
@click.option("--runtime", default="", help="Runtime, such as io.containerd.runc.v2.")
@click.option("--snapshotter", default="", help="Snapshotter of the root file system.")
@click.option("--platform", default="", metavar="OS/ARCH", help="Take the image for this platform.")
@click.option("--log-uri", default="", help="With -d: where output goes, such as file:///var/log/x.log.")
@click.option("--fifo-dir", default="", help="Directory for the pipes between container and terminal.")
@click.pass_obj
def run(where: Where, /, **options: Unpack[RunOptions]) -> int:
    """Run ARGUMENTS, or what IMAGE says, in a new container; the exit code is the container's."""
    from windlass_client.commands.run import run as run_container

    return run_container(where, options)


@click.command(cls=ProcessCommand, context_settings={"allow_interspersed_args": False})
@click.argument("container")
@click.argument("arguments", nargs=-1, required=True)
@click.option("-d", "--detach", is_flag=True, help="Leave it running.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-i", "--interactive", is_flag=True, help="Connect standard input.")
@click.option("-e", "--env", multiple=True, metavar="KEY=VALUE", help="Set a variable; KEY alone removes it.")
@click.option("-u", "--user", default="", metavar="UID:GID", help="Run as this user, by numbers.")
@click.option("-w", "--cwd", default="", metavar="DIR", help="Start in a directory of the container.")
@click.option("--exec-id", default="", help="ID of the process; one is made up otherwise.")
@click.option("--fifo-dir", default="", help="Directory for the pipes between container and terminal.")
@click.pass_obj
def exec_(where: Where, /, **options: Unpack[ExecOptions]) -> int:
    """Run ARGUMENTS inside CONTAINER; the exit code is theirs."""
    from windlass_client.commands.run import run_exec

    return run_exec(where, options)


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Show containers that do not run, too.")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def ps(where: Where, everything: bool, quiet: bool, as_json: bool) -> None:
    """List containers that run."""

    async def work() -> None:
        from windlass_api.containerd.v1.types import task_pb2

        async with where.client() as client:
            containers, tasks = await asyncio.gather(client.containers.list(), client.tasks.list())
        # Task.id is a container's; some daemons leave container_id empty.
        processes = {task.id or task.container_id: task for task in tasks}
        records = []
        for container in containers:
            task = processes.get(container.id)
            if not everything and (task is None or task.status == task_pb2.STOPPED):
                continue
            records.append(
                {
                    "container": container.id,
                    "image": container.image,
                    "pid": task.pid if task else None,
                    "status": _status(container, task),
                    "exit_status": _exit_status(container, task),
                    "runtime": container.runtime.name,
                    "snapshotter": container.snapshotter,
                    "labels": dict(container.labels),
                    "created": output.moment(container.created_at),
                }
            )
        if quiet:
            for record in records:
                click.echo(record["container"])
        else:
            exit_status = ("exit_status",) if everything else ()
            output.rows(records, ("container", "image", "pid", "status", *exit_status, "created"), as_json)

    asyncio.run(work())


def _status(container: Container, task: Process | None) -> str:
    from windlass_api.containerd.v1.types import task_pb2
    from windlass_client.containers import EXIT_STATUS

    if task:
        return task_pb2.Status.Name(task.status).lower()
    return "stopped" if EXIT_STATUS in container.labels else "created"


def _exit_status(container: Container, task: Process | None) -> int | None:
    from windlass_api.containerd.v1.types import task_pb2
    from windlass_client.containers import EXIT_STATUS

    if task:
        return task.exit_status if task.status == task_pb2.STOPPED else None
    # Written when `windlass run` deleted the task; another client may have written anything.
    text = container.labels.get(EXIT_STATUS, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else None


@click.command()
@click.argument("containers", nargs=-1, required=True)
@click.option("-s", "--signal", "name", default="SIGTERM", show_default=True, help="Name or number.")
@click.option("--exec-id", default="", help="Signal this process instead of the first.")
@click.option("-a", "--all", "everybody", is_flag=True, help="Signal every process of the container.")
@click.pass_obj
def kill(where: Where, containers: tuple[str, ...], name: str, exec_id: str, everybody: bool) -> None:
    """Send a signal to CONTAINERS."""
    number = signal_number(name)

    async def work() -> None:
        async with where.client() as client:
            for id in containers:
                await client.tasks.kill(id, number, exec_id, everybody)

    asyncio.run(work())


def signal_number(name: str) -> int:
    """Return the number of a signal: 9, KILL or SIGKILL."""
    if re.fullmatch(r"[0-9]{1,3}", name) and 0 < int(name) <= signal.SIGRTMAX:
        return int(name)
    try:
        return signal.Signals[f"SIG{name.upper().removeprefix('SIG')}"].value
    except KeyError:
        raise click.BadParameter(f"{name!r} is not a signal of Linux", param_hint="--signal") from None


@click.command()
@click.argument("containers", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Kill what still runs.")
@click.pass_obj
def rm(where: Where, containers: tuple[str, ...], force: bool) -> None:
    """Remove CONTAINERS with their snapshots."""

    async def work() -> None:
        from windlass_client.namespace import ClientNamespace
        from windlass_client.networks.cleanup import release
        from windlass_local import launch

        async with where.client() as client:
            for id in containers:
                await launch.remove(ClientNamespace(client), id, force)
                await release(client, id)
                click.echo(id)

    asyncio.run(work())


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def inspect(where: Where, names: tuple[str, ...]) -> None:
    """Print all that is known about containers or images, as JSON."""

    async def work() -> None:
        import json

        from windlass_client import describe

        async with where.client() as client:
            found = [await describe.describe(client, name) for name in names]
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")

    asyncio.run(work())
