"""What `windlass run` and `windlass exec` do once their options are read."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from windlass_client import output
from windlass_client.cli import Where

if TYPE_CHECKING:
    from windlass_client.client import Client
    from windlass_client.fifos import Fifos
    from windlass_client.launch import Wishes

# Any: values of click options, each of the type that its declaration says.
Options = Mapping[str, Any]


def run(where: Where, options: Options) -> int:
    """Run a container as the options say and return its exit code."""
    if options["remove"] and options["detach"]:
        raise click.UsageError("--rm and -d exclude each other: nobody would be there to remove it")
    if options["log_uri"] and not options["detach"]:
        raise click.UsageError("--log-uri needs -d")
    _check_terminal(options)
    wishes = _wishes(options)
    return asyncio.run(_run(where, wishes, options))


def _check_terminal(options: Options) -> None:
    if options["tty"] and options["interactive"] and not options["detach"] and not sys.stdin.isatty():
        raise click.UsageError("-t with -i needs a terminal as standard input; leave -t out")


def _wishes(options: Options) -> Wishes:
    from windlass_client import spec
    from windlass_client.launch import Wishes
    from windlass_images import platforms

    return Wishes(
        image=options["image"],
        id=options["name"] or f"c-{secrets.token_hex(6)}",
        arguments=options["arguments"],
        env=options["env"],
        mounts=options["mount"],
        labels=dict(label.partition("=")[::2] for label in options["label"]),
        entrypoint=options["entrypoint"],
        user=options["user"],
        cwd=options["cwd"],
        hostname=options["hostname"],
        memory=spec.parse_size(options["memory"]) if options["memory"] else 0,
        cpus=options["cpus"],
        pids=options["pids_limit"],
        cap_add=options["cap_add"],
        cap_drop=options["cap_drop"],
        security=options["security_opt"],
        net_host=options["net_host"],
        read_only=options["read_only"],
        terminal=options["tty"],
        runtime=options["runtime"],
        snapshotter=options["snapshotter"],
        platform=platforms.parse(options["platform"]) if options["platform"] else platforms.host(),
    )


async def _run(where: Where, wishes: Wishes, options: Options) -> int:
    from windlass_client import launch
    from windlass_client.session import Session

    async with where.client() as client:
        with output.progress() as show:
            launched = await launch.create(client, wishes, show)
        session = None
        try:
            with _streams(wishes.id, options) as streams:
                await client.tasks.create(wishes.id, launched.rootfs, streams)
                if options["detach"]:
                    await client.tasks.start(wishes.id)
                    click.echo(wishes.id)
                    return 0
                session = Session(client, wishes.id, "", streams)
                status = await session.run(lambda: client.tasks.delete(wishes.id))
        except BaseException:
            if not (session and session.left):
                await asyncio.shield(launch.undo(client, wishes.id))
            raise
        if options["remove"]:
            await launch.remove(client, wishes.id, force=True)
        else:
            await client.containers.label(wishes.id, {launch.EXIT_STATUS: str(status)})
        return status


def _streams(name: str, options: Options) -> Fifos:
    from windlass_client import fifos

    if options["detach"]:
        # Nobody reads: output goes to a log, or nowhere; a terminal needs a pipe all the same.
        log = options.get("log_uri", "")
        return fifos.Fifos(stdout=log, stderr="" if options["tty"] else log, terminal=options["tty"])
    return fifos.make(
        name,
        stdin=options["interactive"],
        terminal=options["tty"],
        parent=options["fifo_dir"] or fifos.DIRECTORY,
    )


def run_exec(where: Where, options: Options) -> int:
    """Run a process in a container as the options say and return its exit code."""
    _check_terminal(options)
    return asyncio.run(_exec(where, options))


async def _exec(where: Where, options: Options) -> int:
    from windlass.errors import FailedPrecondition, NotFound
    from windlass_client.containers import PROCESS, spec_of, to_any
    from windlass_client.session import Session

    id = options["container"]
    exec_id = options["exec_id"] or f"exec-{secrets.token_hex(6)}"
    async with where.client() as client:
        process = _process(spec_of(await client.containers.get(id))["process"], options)
        with _streams(exec_id, options) as streams:
            try:
                await client.tasks.exec(id, exec_id, to_any(PROCESS, process), streams)
            except NotFound:
                raise FailedPrecondition(f"container {id} is not running; it has no task") from None
            try:
                if options["detach"]:
                    await client.tasks.start(id, exec_id)
                    click.echo(exec_id)
                    return 0
                session = Session(client, id, exec_id, streams)
                return await session.run(lambda: client.tasks.delete_exec(id, exec_id))
            except BaseException:
                await asyncio.shield(_undo_exec(client, id, exec_id))
                raise


async def _undo_exec(client: Client, id: str, exec_id: str) -> None:
    from windlass.errors import Error

    for step in (client.tasks.kill(id, 9, exec_id), client.tasks.delete_exec(id, exec_id)):
        try:
            await step
        except Error:
            pass  # why the process failed is what has to be told


def _process(process: dict[str, Any], options: Options) -> dict[str, Any]:
    from windlass_client import spec, users

    process = {**process, "args": list(options["arguments"]), "terminal": options["tty"]}
    process["env"] = spec.merge_env(process.get("env") or [], options["env"])
    if options["tty"] and not any(entry.startswith("TERM=") for entry in process["env"]):
        process["env"].append("TERM=xterm")
    document = {"process": process}
    if options["user"]:
        user = options["user"] if ":" in options["user"] else f"{options['user']}:0"
        if not users.is_numeric(user):
            raise click.BadParameter("exec takes numbers, such as 1000:1000", param_hint="--user")
        found = users.parse(user, users.Accounts())
        spec.set_user(document, found.uid, found.gid, ())
    if options["cwd"]:
        spec.set_cwd(document, options["cwd"])
    return process
