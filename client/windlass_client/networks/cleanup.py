"""Takes back what a container's networks have left: the hook may never have run, or a plugin may have failed in it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.errors import Error, NotFound
from windlass_client.datadir import DataDirectory, host_networks
from windlass_client.networks import files, record

if TYPE_CHECKING:
    from windlass_client.client import Client

CREATION = 120.0
"""Seconds that a client may take from the files of a container to its record."""


async def release(client: Client, id: str) -> None:
    """Detach a container that has been removed, and remove its files of networks. Raises the plugins' errors."""
    await asyncio.to_thread(release_directory, DataDirectory.of(client.connection).container(id))


async def release_removed(client: Client, id: str) -> None:
    """Release a container after a failure, if it is gone; another failure does not hide the first."""
    try:
        await client.containers.get(id)
    except NotFound:
        try:
            await release(client, id)
        except (Error, OSError):
            pass
    except Error:
        pass  # it is not known, so the files stay


def release_directory(directory: Path) -> None:
    """Detach the container of a directory and remove its files; those of others stay. Raises the plugins' errors."""
    if not directory.is_dir():
        return
    asked = record.read(directory)
    if asked is not None:
        _detach(directory, asked)
    for name in (record.FILE, record.LOCK, *files.NAMES):
        (directory / name).unlink(missing_ok=True)
    try:
        directory.rmdir()
    except OSError:
        pass  # others have files there


async def detach(client: Client, id: str) -> None:
    """Detach a container whose task has ended, so that its ports and addresses are free. Raises the plugins' errors."""
    directory = DataDirectory.of(client.connection).container(id)
    asked = await asyncio.to_thread(record.read, directory)
    if asked is not None:
        await asyncio.to_thread(_detach, directory, asked)


def _detach(directory: Path, asked: record.NetworkRecord) -> None:
    # CNI's modules are many, and most containers of a foreground command have nothing for them.
    from windlass_client.networks import attach

    attach.detach(directory, asked)


def collect(data: DataDirectory, known: Collection[str]) -> None:
    """Detach containers of a namespace that are not known any more, and remove what clients that were killed left.

    A container that is being created is not known yet: its directory is left alone for a while.
    """
    from windlass_client.networks.members import Registry

    for directory in data.containers.glob("*/"):
        if directory.name not in known and not _is_young(directory):
            release_directory(directory)
            shutil.rmtree(directory, ignore_errors=True)
    registry = Registry(host_networks() / "attached")
    with registry.locked():
        for member in registry.all():
            if not Path(member.directory).exists() and not member.alive:
                registry.drop(member.key)


def _is_young(directory: Path) -> bool:
    """Return whether a client has made or changed files in a directory a short time ago."""
    try:
        return time.time() - directory.stat().st_mtime < CREATION
    except FileNotFoundError:
        return True  # it was removed just now
