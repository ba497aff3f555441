"""A container in the foreground: its output comes by the program that keeps its log, our input goes to its FIFO."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from windlass_client.datadir import DataDirectory
from windlass_client.lifecycle.asked import Asked
from windlass_client.logs.program import STDIN
from windlass_client.logs.viewing import View
from windlass_client.session import Detached, Session
from windlass_local.fifos import Fifos

if TYPE_CHECKING:
    from windlass_client.client import Client
    from windlass_client.namespace import ClientNamespace


@dataclass(frozen=True)
class Attachment:
    """How a client is attached to a container."""

    stdin: bool = False
    detach_keys: bytes = b""
    proxy: bool = True
    begin: bool = True
    """Whether the client starts the container, and ends with it; another one may leave it."""


def view(client: Client, asked: Asked) -> View:
    """Connect to the output of a container whose task is there. Raises FailedPrecondition."""
    return View(DataDirectory.of(client.connection).container(asked.id))


async def follow(
    namespace: ClientNamespace,
    asked: Asked,
    shown: View,
    streams: Fifos,
    how: Attachment,
    delete: Callable[[], Awaitable[object]] | None,
) -> int | None:
    """Stay with a container until it has ended and return its exit status, None if the user has left it."""
    session = Session(
        namespace.tasks,
        asked.id,
        "",
        streams,
        view=shown,
        detach_keys=how.detach_keys,
        begin=how.begin,
        proxy=how.proxy,
        close_stdin=asked.stdin == "once",
    )
    try:
        return await session.run(delete)
    except Detached:
        # docker's words; they end a terminal's last line, too
        sys.stderr.write("read escape sequence\n")
        return None
    finally:
        shown.close()


def stdin_of(client: Client, asked: Asked, wanted: bool = True) -> Fifos:
    """Open a container's standard input, if it has one.

    Open it also while a task is created: containerd's shim takes a FIFO without a writer for one that has ended.
    """
    streams = Fifos(terminal=asked.terminal)
    if wanted and asked.stdin:
        path = DataDirectory.of(client.connection).container(asked.id) / STDIN
        # Read-write, because opening for writing alone fails as long as the shim is not there, fifo(7).
        streams.descriptors["stdin"] = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    return streams
