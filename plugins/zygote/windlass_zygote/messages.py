"""One message per packet between daemon and zygote: a JSON object, and descriptors beside it."""

# Any in this file: a JSON object as parsed; both ends of the socket are ours.
from __future__ import annotations

import array
import json
import select
import socket
import time
from collections.abc import Sequence
from typing import Any

MAX_MESSAGE = 128 << 10
"""Longest packet; arguments are a handful of paths, so anything longer is a mistake."""

MAX_DESCRIPTORS = 64
"""Well below the 253 of SCM_MAX_FD."""


def send(sock: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = (), timeout: float = 10.0) -> None:
    """Send one packet; raises TimeoutError when the peer takes none for that long, OSError when it is gone."""
    data = json.dumps(message).encode()
    if len(data) > MAX_MESSAGE or len(descriptors) > MAX_DESCRIPTORS:
        raise ValueError(f"message of {len(data)} bytes with {len(descriptors)} descriptors is too long for the zygote")
    end = time.monotonic() + timeout
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    # socket.send_fds and recv_fds of Python 3.11 drop their flags.
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    while True:
        try:
            sock.sendmsg([data], rights, flags)
            return
        except BlockingIOError:
            wait(sock, select.POLLOUT, end - time.monotonic())


def receive(sock: socket.socket, timeout: float | None = None) -> tuple[dict[str, Any] | None, list[int]]:
    """Return one packet and its descriptors, None at end of file; raises TimeoutError."""
    wait(sock, select.POLLIN, timeout)
    space = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
    data, ancillary, _, _ = sock.recvmsg(MAX_MESSAGE, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, rights in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(rights)
    return (json.loads(data) if data else None), list(descriptors)


def wait(sock: socket.socket, event: int, timeout: float | None) -> None:
    """Return when ``event`` or a hang-up has come; raises TimeoutError."""
    poll = select.poll()
    poll.register(sock, event)
    if not poll.poll(None if timeout is None else max(0.0, timeout) * 1000):
        raise TimeoutError("the other side of the zygote's socket does not answer")
