"""The socket by which clients see a container's output as it comes: `windlass run`, `windlass attach`.

A message is a byte that names the stream, 1 or 2, and bytes of output. A viewer that ends its own direction gets all
that has come until then, and the end. A viewer that does not read holds up the container, as docker has it.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_SEQPACKET, socket
from select import POLLHUP, POLLIN, POLLOUT, poll

NAME = "attach"
"""Of the socket, in the container's directory."""
OWNER = b"owner"
"""What a client sends that removes the container itself, unless it goes away before."""
BACKLOG = 1 << 20
"""Bytes that may wait for a viewer before the container's output is left in its pipe."""


class Viewer:
    """A client that watches."""

    def __init__(self, fd: int) -> None:
        self._socket = socket(fileno=fd)
        self.fd = fd
        self._waiting: list[bytes] = []
        self.size = 0
        self.leaving = False
        self.gone = False
        self.owns = False
        """Whether it does, when the container has ended, what the program would do otherwise."""

    def send(self, message: bytes) -> None:
        """Send a message, or keep it until the client takes it."""
        if not self.gone and not self.leaving:
            self._waiting.append(message)
            self.size += len(message)
            self.flush()

    def flush(self) -> None:
        """Send what the client takes now."""
        while self._waiting and not self.gone:
            try:
                self._socket.send(self._waiting[0])
            except BlockingIOError:
                return
            except OSError:
                self.gone = True
                return
            self.size -= len(self._waiting.pop(0))
        self.gone = self.gone or self.leaving

    @property
    def events(self) -> int:
        """What to wait for."""
        return (0 if self.leaving else POLLIN) | (POLLOUT if self._waiting else 0)

    def has_said_goodbye(self, events: int) -> bool:
        """Return whether the client has ended its direction."""
        if events & POLLHUP:
            self.gone = True
        elif events & POLLIN:
            try:
                message = self._socket.recv(64)
                self.owns = self.owns or message == OWNER
                return not message
            except OSError:
                self.gone = True
        return False

    def leave(self) -> None:
        """End after what waits has been sent."""
        self.leaving = True
        self.flush()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class Viewers:
    """All clients that watch one container; made in its directory."""

    def __init__(self) -> None:
        if os.path.exists(NAME):  # noqa: PTH110 - pathlib is too big here
            os.unlink(NAME)  # noqa: PTH108
        self._listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        self._listener.bind(NAME)
        self._listener.listen(16)
        self.fd = self._listener.fileno()
        self.by_fd: dict[int, Viewer] = {}

    def accept(self) -> None:
        """Take those clients that have connected."""
        while True:
            try:
                fd, _ = self._listener._accept()  # type: ignore[attr-defined] # accept() is made of it, in what is too big here
            except OSError:
                return
            os.set_blocking(fd, False)
            self.by_fd[fd] = Viewer(fd)

    def listen(self) -> None:
        """Take what clients have said until now, also those that have only just connected."""
        self.accept()
        waiting = poll()
        for fd in self.by_fd:
            waiting.register(fd, POLLIN)
        for fd, events in waiting.poll(0):
            self.by_fd[fd].has_said_goodbye(events)
        self.sweep()

    def send(self, message: bytes) -> None:
        """Send output to every client."""
        for viewer in self.by_fd.values():
            viewer.send(message)

    def are_behind(self) -> bool:
        """Return whether one has so much to read that no more should come."""
        return any(viewer.size > BACKLOG for viewer in self.by_fd.values())

    def sweep(self) -> None:
        """Close those that have gone."""
        for viewer in [each for each in self.by_fd.values() if each.gone]:
            del self.by_fd[viewer.fd]
            viewer.close()

    def close(self) -> None:
        """Take no new clients."""
        self._listener.close()
        if os.path.exists(NAME):  # noqa: PTH110
            os.unlink(NAME)  # noqa: PTH108
