"""Makes the task of a container: streams, log program, FIFO for standard input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from windlass.contracts.containers import Container
from windlass.contracts.mounts import Mount
from windlass.contracts.tasks import IO, CreateOptions
from windlass.errors import NotFound
from windlass_client import datadir
from windlass_client.connection import target
from windlass_client.datadir import DataDirectory
from windlass_client.lifecycle.asked import Asked
from windlass_client.logs import besides, keeping
from windlass_client.logs.keeping import Companions
from windlass_client.logs.program import STDIN
from windlass_remote.messages import from_mounts

if TYPE_CHECKING:
    from windlass_client.client import Client
    from windlass_client.namespace import ClientNamespace

OUR_SHIM = "io.windlass.shim.v1"


def output_uri(client: Client, asked: Asked) -> str:
    """Return where a container's output goes, empty for nowhere."""
    if not asked.log:
        return asked.log_uri
    return keeping.uri(DataDirectory.of(client.connection).container(asked.id) / keeping.PROGRAM)


def make_files(client: Client, asked: Asked) -> None:
    """Write what the shim and clients find in the container's directory."""
    if not asked.log and not asked.stdin:
        return
    data = DataDirectory.of(client.connection)
    directory = datadir.directory(data.container(asked.id))
    if asked.log:
        keeping.prepare(data, asked.id, asked.terminal, asked.log, _companions(client, asked))
    if asked.stdin:
        fifo = directory / STDIN
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo, 0o600)


def _companions(client: Client, asked: Asked) -> Companions:
    # They run in a directory of their own.
    place = (target(client.connection.address), client.namespace, asked.id)
    return Companions(
        keeping.command("windlass_client.lifecycle.health", *place) if asked.health else (),
        keeping.command("windlass_client.lifecycle.removal", *place) if asked.remove else (),
    )


async def create(
    client: Client,
    namespace: ClientNamespace,
    container: Container,
    asked: Asked,
    rootfs: Sequence[Mount] | None = None,
) -> None:
    """Create a container's task, not yet running, after `make_files`. Raises AlreadyExists if there is one."""
    if rootfs is None:
        rootfs = await _mounts(client, container)
    uri, directory = output_uri(client, asked), DataDirectory.of(client.connection).container(asked.id)
    stdin = str(directory / STDIN) if asked.stdin else ""
    if asked.stdin and asked.log and not asked.terminal and not await _has_our_shim(client):
        with besides.started(directory) as (stdout, stderr):
            streams = IO(stdin, stdout, stderr)
            pid = await namespace.tasks.create(container, CreateOptions(rootfs=tuple(rootfs), io=streams))
            besides.write_pid(directory, pid)
        return
    streams = IO(stdin, uri, "" if asked.terminal else uri, asked.terminal)
    await namespace.tasks.create(container, CreateOptions(rootfs=tuple(rootfs), io=streams))


async def _has_our_shim(client: Client) -> bool:
    return bool(await client.introspection.plugins(f"type=={OUR_SHIM}"))


async def _mounts(client: Client, container: Container) -> Sequence[Mount]:
    if not container.snapshot_key:
        return ()
    try:
        return from_mounts(await client.snapshots.mounts(container.snapshotter, container.snapshot_key))
    except NotFound:
        await client.containers.get(container.id)  # another client may have removed both meanwhile
        raise NotFound(
            f"container {container.id} has lost its root file system, snapshot {container.snapshot_key}; "
            "remove it and run it again"
        ) from None
