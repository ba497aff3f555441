"""What `windlass run` and `windlass exec` do once their options are read."""

from __future__ import annotations

import asyncio
import secrets
import sys
from typing import TYPE_CHECKING, NotRequired, TypedDict

import click

from windlass_client import output
from windlass_client.cli import Where
from windlass_client.commands.network_options import NetworkOptionValues
from windlass_client.commands.volumeoptions import MountOptions

if TYPE_CHECKING:
    from windlass_client.client import Client
    from windlass_client.launch import LaunchOptions
    from windlass_local.fifos import Fifos
    from windlass_local.launch import Launched
    from windlass_local.namespace import Namespace, Tasks
    from windlass_oci.runtime_spec import Process


class StreamOptions(TypedDict):
    """The options of `run` and `exec` that say where the process's streams go."""

    tty: bool
    interactive: bool
    detach: bool
    fifo_dir: str
    log_uri: NotRequired[str]


class RunOptions(StreamOptions, NetworkOptionValues, MountOptions):
    """The options and arguments of `windlass run`, as its declaration in `containers.py` has them."""

    image: str
    arguments: tuple[str, ...]
    remove: bool
    env: tuple[str, ...]
    memory: str
    cpus: float
    pids_limit: int
    cap_add: tuple[str, ...]
    cap_drop: tuple[str, ...]
    security_opt: tuple[str, ...]
    name: str
    hostname: str
    user: str
    cwd: str
    entrypoint: str | None
    label: tuple[str, ...]
    read_only: bool
    runtime: str
    snapshotter: str
    platform: str


class ExecOptions(StreamOptions):
    """The options and arguments of `windlass exec`."""

    container: str
    arguments: tuple[str, ...]
    env: tuple[str, ...]
    user: str
    cwd: str
    exec_id: str


def run(where: Where, options: RunOptions) -> int:
    """Run a container as the options say and return its exit code."""
    if options["remove"] and options["detach"]:
        raise click.UsageError("--rm and -d exclude each other: with -d no client is left to remove the container")
    if options.get("log_uri") and not options["detach"]:
        raise click.UsageError("--log-uri needs -d")
    _check_terminal(options)
    wanted = _launch_options(where, options)
    return asyncio.run(_run(where, wanted, options))


def _check_terminal(options: StreamOptions) -> None:
    if options["tty"] and options["interactive"] and not options["detach"] and not sys.stdin.isatty():
        raise click.UsageError("-t with -i needs a terminal as standard input; leave -t out")


def _launch_options(where: Where, options: RunOptions) -> LaunchOptions:
    from windlass_client.arguments import parse_size
    from windlass_client.commands import network_options
    from windlass_client.commands.volumeoptions import wanted_mounts
    from windlass_client.launch import LaunchOptions
    from windlass_images import platforms

    return LaunchOptions(
        image=options["image"],
        id=options["name"] or f"c-{secrets.token_hex(6)}",
        arguments=options["arguments"],
        env=options["env"],
        volumes=wanted_mounts(where, options),
        labels=dict(label.partition("=")[::2] for label in options["label"]),
        entrypoint=options["entrypoint"],
        user=options["user"],
        cwd=options["cwd"],
        hostname=options["hostname"],
        memory=parse_size(options["memory"]) if options["memory"] else 0,
        cpus=options["cpus"],
        pids=options["pids_limit"],
        cap_add=options["cap_add"],
        cap_drop=options["cap_drop"],
        security=options["security_opt"],
        network=network_options.read(options),
        read_only=options["read_only"],
        terminal=options["tty"],
        runtime=options["runtime"],
        snapshotter=options["snapshotter"],
        platform=platforms.parse(options["platform"]) if options["platform"] else platforms.host(),
    )


async def _run(where: Where, wanted: LaunchOptions, options: RunOptions) -> int:
    from windlass_client.launch import create
    from windlass_client.namespace import ClientNamespace
    from windlass_client.networks.cleanup import release, release_removed
    from windlass_local import launch

    async with where.client() as client:
        with output.progress() as show:
            launched = await create(client, wanted, show)
        namespace = ClientNamespace(client)
        try:
            status = await _run_task(namespace, launched, options)
        except BaseException:
            await asyncio.shield(release_removed(client, wanted.id))
            raise
        if status is None:
            click.echo(wanted.id)
            return 0
        if options["remove"]:
            await launch.remove(namespace, wanted.id, force=True)
            await release(client, wanted.id)
        else:
            await _remember(client, wanted.id, status)
        return status


async def _remember(client: Client, id: str, status: int) -> None:
    from windlass_client.containers import EXIT_STATUS

    await client.containers.label(id, {EXIT_STATUS: str(status)})


async def _run_task(namespace: Namespace, launched: Launched, options: RunOptions) -> int | None:
    """Run a container's task and return its exit status, None if it runs on; on failure the container goes too."""
    from windlass.contracts.tasks import CreateOptions
    from windlass_client.session import Session
    from windlass_local import launch

    id, tasks, session = launched.container.id, namespace.tasks, None
    try:
        with _streams(id, options) as streams:
            await tasks.create(launched.container, CreateOptions(rootfs=launched.rootfs, io=streams.io))
            if options["detach"]:
                await tasks.start(id)
                return None
            session = Session(tasks, id, "", streams)
            return await session.run(lambda: tasks.delete(id))
    except BaseException:
        if not (session and session.left):
            await asyncio.shield(launch.undo(namespace, id))
        raise


def _streams(name: str, options: StreamOptions) -> Fifos:
    from windlass_local import fifos

    if options["detach"]:
        # Output goes to a log, or nowhere, since no client reads it; a terminal needs a pipe all the same.
        log = options.get("log_uri", "")
        return fifos.Fifos(stdout=log, stderr="" if options["tty"] else log, terminal=options["tty"])
    return fifos.make(
        name,
        stdin=options["interactive"],
        terminal=options["tty"],
        parent=options["fifo_dir"] or fifos.DIRECTORY,
    )


def run_exec(where: Where, options: ExecOptions) -> int:
    """Run a process in a container as the options say and return its exit code."""
    _check_terminal(options)
    return asyncio.run(_exec(where, options))


async def _exec(where: Where, options: ExecOptions) -> int:
    from windlass.errors import FailedPrecondition, NotFound
    from windlass_client.namespace import ClientNamespace
    from windlass_oci.payloads import PROCESS, spec_of, to_payload

    id = options["container"]
    exec_id = options["exec_id"] or f"exec-{secrets.token_hex(6)}"
    async with where.client() as client:
        namespace = ClientNamespace(client)
        process = _process(spec_of(await namespace.containers.get(id))["process"], options)
        with _streams(exec_id, options) as streams:
            try:
                await namespace.tasks.exec(id, exec_id, to_payload(PROCESS, process), streams.io)
            except NotFound:
                raise FailedPrecondition(f"container {id} is not running; it has no task") from None
            try:
                return await _run_exec(namespace.tasks, id, exec_id, streams, options["detach"])
            except BaseException:
                await asyncio.shield(_undo_exec(namespace.tasks, id, exec_id))
                raise


async def _run_exec(tasks: Tasks, id: str, exec_id: str, streams: Fifos, detach: bool) -> int:
    from windlass_client.session import Session

    if detach:
        await tasks.start(id, exec_id)
        click.echo(exec_id)
        return 0
    return await Session(tasks, id, exec_id, streams).run(lambda: tasks.delete_exec(id, exec_id))


async def _undo_exec(tasks: Tasks, id: str, exec_id: str) -> None:
    from windlass.errors import Error

    for step in (tasks.kill(id, 9, exec_id), tasks.delete_exec(id, exec_id)):
        try:
            await step
        except Error:
            pass  # the first failure is the one that the user needs


def _process(base: Process, options: ExecOptions) -> Process:
    """Return the container's own process with other arguments, and what the options change."""
    from windlass_oci import process, users

    made: Process = {**base, "args": list(options["arguments"]), "terminal": options["tty"]}
    made["env"] = process.merge_env(base.get("env") or [], options["env"])
    if options["tty"] and not any(entry.startswith("TERM=") for entry in made["env"]):
        made["env"].append("TERM=xterm")
    if options["user"]:
        user = options["user"] if ":" in options["user"] else f"{options['user']}:0"
        if not users.is_numeric(user):
            raise click.BadParameter("exec takes numbers, such as 1000:1000", param_hint="--user")
        process.set_user(made, users.find_user(user, users.Accounts()))
    if options["cwd"]:
        process.set_cwd(made, options["cwd"])
    return made
