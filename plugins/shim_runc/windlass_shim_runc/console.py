"""Receives a terminal's master from the OCI runtime, and sets its size."""

# pathlib is half a megabyte that shims do without; files here are local and short.
from __future__ import annotations

import _socket
import fcntl
import itertools
import os
import struct
import termios

from windlass.errors import DeadlineExceeded, Error
from windlass_shim_runc.loop import Loop
from windlass_shim_runc.server import accept

TIMEOUT = 30.0
MASTER = struct.Struct("i")
_numbers = itertools.count(1)


class Console:
    """A listening socket in the bundle, to which the runtime sends the master."""

    def __init__(self, bundle: str) -> None:
        self._name = f"console-{next(_numbers)}"
        self._directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY)
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._socket.setblocking(False)
        # A bundle's path may exceed the 107 bytes of a socket address; this one never does.
        self.path = f"/proc/{os.getpid()}/fd/{self._directory}/{self._name}"
        try:
            self._socket.bind(self.path)
            self._socket.listen(1)
        except OSError:
            self.close()
            raise

    async def receive(self, loop: Loop) -> int:
        """Return the master; the runtime has normally sent it before it ended."""
        try:
            await loop.readable(self._socket.fileno(), TIMEOUT)
            peer = _socket.socket(fileno=accept(self._socket))
            try:
                peer.setblocking(False)
                await loop.readable(peer.fileno(), TIMEOUT)
                _, ancillary, _, _ = peer.recvmsg(4096, _socket.CMSG_SPACE(MASTER.size), _socket.MSG_CMSG_CLOEXEC)
            finally:
                peer.close()
        except TimeoutError as error:
            raise DeadlineExceeded(f"the OCI runtime sent no terminal in {TIMEOUT:.0f} s") from error
        for _level, _kind, data in ancillary:
            (master,) = MASTER.unpack(data)
            return int(master)
        raise Error("the OCI runtime sent no terminal")

    def close(self) -> None:
        """Remove the socket; may be called twice."""
        self._socket.close()
        if self._directory >= 0:
            try:
                os.unlink(self._name, dir_fd=self._directory)
            except FileNotFoundError:
                pass
            os.close(self._directory)
            self._directory = -1


def resize(master: int, width: int, height: int) -> None:
    """Set a terminal's size in characters; its foreground processes get SIGWINCH."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0))
