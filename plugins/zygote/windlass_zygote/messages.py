"""One message per packet between daemon and zygote, with descriptors: the daemon's side."""

from __future__ import annotations

import marshal
import select
import socket
import time
from collections.abc import Sequence

from windlass_zygote.process import DESCRIPTOR, MAX_DESCRIPTORS, MAX_MESSAGE, SPACE


def send(
    sock: socket.socket,
    message: list[str] | tuple[str, list[str]] | None,
    descriptors: Sequence[int] = (),
    timeout: float = 10.0,
) -> None:
    """Send one packet; raises TimeoutError when the peer takes none for that long, OSError when it is gone."""
    data = marshal.dumps(message)
    if len(data) > MAX_MESSAGE or len(descriptors) > MAX_DESCRIPTORS:
        raise ValueError(f"message of {len(data)} bytes with {len(descriptors)} descriptors is too long for the zygote")
    end = time.monotonic() + timeout
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    # socket.send_fds and recv_fds of Python 3.11 drop their flags.
    packed = b"".join(DESCRIPTOR.pack(fd) for fd in descriptors)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)] if packed else []
    while True:
        try:
            sock.sendmsg([data], rights, flags)
            return
        except BlockingIOError:
            wait(sock, select.POLLOUT, end - time.monotonic())


def receive(sock: socket.socket, timeout: float | None = None) -> tuple[bytes, list[int]]:
    """Return one packet and its descriptors, no bytes at end of file; raises TimeoutError."""
    wait(sock, select.POLLIN, timeout)
    data, ancillary, _, _ = sock.recvmsg(MAX_MESSAGE, SPACE, socket.MSG_CMSG_CLOEXEC)
    return data, [fd for _, _, rights in ancillary for (fd,) in DESCRIPTOR.iter_unpack(rights)]


def wait(sock: socket.socket, event: int, timeout: float | None) -> None:
    """Return when ``event`` or a hang-up has come; raises TimeoutError."""
    poll = select.poll()
    poll.register(sock, event)
    if not poll.poll(None if timeout is None else max(0.0, timeout) * 1000):
        raise TimeoutError("the other side of the zygote's socket does not answer")
