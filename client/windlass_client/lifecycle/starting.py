"""Starts containers that exist, in the background or with their output on ours."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from windlass.contracts.containers import Container
from windlass.contracts.mounts import Mount
from windlass.errors import Error, FailedPrecondition, NotFound
from windlass_client.containers import EXIT_STATUS
from windlass_client.lifecycle import asked as askings
from windlass_client.lifecycle import attaching, restarts, stopping, tasks
from windlass_client.lifecycle.asked import Asked
from windlass_client.lifecycle.attaching import Attachment
from windlass_client.lifecycle.states import FINISHED
from windlass_client.namespace import ClientNamespace
from windlass_local.fifos import Fifos
from windlass_local.waiting import unless_gone

if TYPE_CHECKING:
    from windlass_client.client import Client


async def start(client: Client, container: Container) -> None:
    """Start a container that does not run; one that runs stays as it is."""
    asked = await _prepare(client, container)
    if asked:
        await run_detached(client, container, None, asked)


async def start_attached(client: Client, container: Container, how: Attachment) -> int | None:
    """Start a container and stay with it; return its exit status, None if the user has left it."""
    asked = await _prepare(client, container)
    if not asked:
        raise FailedPrecondition(f"container {container.id} runs already; use `windlass attach`")
    return await run_attached(client, container, None, asked, how)


async def _begin(namespace: ClientNamespace, id: str) -> None:
    try:
        await namespace.tasks.start(id)
    except BaseException:
        await asyncio.shield(unless_gone(_discard(namespace, id)))
        raise


async def _discard(namespace: ClientNamespace, id: str) -> None:
    """Delete a task that could not be started; the first failure is the one that the user needs."""
    try:
        await namespace.tasks.kill(id, 9)
    except Error:
        pass
    try:
        await namespace.tasks.delete(id)
    except Error:
        pass


async def _prepare(client: Client, container: Container) -> Asked | None:
    """Make room for a new task, and say what the daemon's monitor is to do; None if the container runs."""
    asked = askings.of(container)
    if await stopping.runs(client, container.id):
        return None
    try:
        await client.tasks.delete(container.id)
    except NotFound:
        pass
    changed = dict(restarts.started(asked.restart, tasks.output_uri(client, asked), counted=True))
    changed |= {key: "" for key in (EXIT_STATUS, FINISHED) if key in container.labels}
    if changed:
        await client.containers.label(container.id, changed)
    return asked


async def run_detached(client: Client, container: Container, rootfs: Sequence[Mount] | None, asked: Asked) -> None:
    """Create and start a task; without ``rootfs``, that is the container's snapshot."""
    namespace = ClientNamespace(client)
    tasks.make_files(client, asked)
    with attaching.stdin_of(client, asked):
        await tasks.create(client, namespace, container, asked, rootfs)
        await _begin(namespace, container.id)


async def run_attached(
    client: Client, container: Container, rootfs: Sequence[Mount] | None, asked: Asked, how: Attachment
) -> int | None:
    """Create and start a task, and stay with it."""
    namespace = ClientNamespace(client)
    tasks.make_files(client, asked)
    with attaching.stdin_of(client, asked) as streams:
        await tasks.create(client, namespace, container, asked, rootfs)
        if not how.stdin and streams.descriptors:
            os.close(streams.take("stdin"))
        return await _stay(client, namespace, asked, streams, how)


async def _stay(
    client: Client, namespace: ClientNamespace, asked: Asked, streams: Fifos, how: Attachment
) -> int | None:
    """Start a created task and stay until its end, which is remembered; None if the user has left it."""
    shown = attaching.view(client, asked)
    if asked.remove:
        shown.own()
    # The daemon's monitor needs the ended task to see how it ended.
    delete = None if asked.restart else lambda: namespace.tasks.delete(asked.id)
    status = await attaching.follow(namespace, asked, shown, streams, how, delete)
    if status is not None and delete and not asked.remove:
        await remember(client, asked.id, status)
    return status


async def remember(client: Client, id: str, status: int) -> None:
    """Note how a task that was deleted had ended."""
    await client.containers.label(id, {EXIT_STATUS: str(status), FINISHED: str(time.time_ns())})


async def attach(client: Client, container: Container, how: Attachment) -> int | None:
    """Show what a running container writes, and give it what is typed; return its exit status as `follow`."""
    asked = askings.of(container)
    if not await stopping.runs(client, container.id):
        raise FailedPrecondition(
            f"container {container.id} is not running; `windlass start -a {container.id}` starts it"
        )
    if asked.log_uri or not asked.log:
        where = f"its output goes to {asked.log_uri}" if asked.log_uri else "another client started it"
        raise FailedPrecondition(f"container {container.id} cannot be attached to: {where}")
    shown = attaching.view(client, asked)
    with attaching.stdin_of(client, asked, how.stdin) as streams:
        return await attaching.follow(ClientNamespace(client), asked, shown, streams, how, None)
