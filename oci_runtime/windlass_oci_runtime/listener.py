"""Hands the listener of a seccomp filter to the program that answers its calls (runtime-spec, config-linux, seccomp).

A process of its own takes the descriptor from the filtered one, which could not send it when sending is what it has to
ask for; and who makes the container can do other things meanwhile.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import socket

from windlass_linux import calls as linux
from windlass_oci_runtime.clone import clone
from windlass_oci_runtime.report import tell
from windlass_oci_runtime.seclusion import keep_only
from windlass_oci_runtime.state import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from windlass_oci_runtime.seccomp import Filter

    Json = Mapping[str, object]

_NR_PIDFD_GETFD = 438
FIELD = "seccompFd"


class Handover:
    """Pipes between the filtered process and the one that serves it; none for a filter without a listener."""

    __slots__ = ("_asked", "_done", "_metadata", "_path")

    def __init__(self, filter: Filter | None) -> None:
        """Be ready before the process is made."""
        self._path = filter.listener if filter is not None else ""
        self._metadata = filter.metadata if filter is not None else ""
        self._asked = self._done = (-1, -1)
        if self._path:
            self._asked, self._done = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the filtered process needs of it, -1 for none."""
        return self._asked[1], self._done[0]

    def offer(self, listener: int) -> None:
        """In the filtered process: hand ``listener`` over, and have it no more; ends when it was not taken."""
        if listener < 0:
            return
        os.write(self._asked[1], b"%d" % listener)
        if not os.read(self._done[0], 1):
            os._exit(1)
        os.close(listener)

    def serve(self, pid: int, state: Json, report: int) -> int:
        """In the runtime: begin the process that sends the listener of ``pid``; its failure goes into ``report``.

        Returns its pid, 0 for none; it has done its work when the filtered process goes on.
        """
        if not self._path or (helper := clone(0)):
            return helper if self._path else 0
        try:
            keep_only({self._asked[0], self._done[1], report})
            if asked := os.read(self._asked[0], 16):
                self._send(_taken(pid, int(asked)), pid, state)
                os.write(self._done[1], b"1")
        except BaseException as error:  # noqa: BLE001 -- a copy of the runtime must not go on with the runtime's work
            tell(report, "seccomp listener", error)
        os._exit(0)

    def _send(self, listener: int, pid: int, state: Json) -> None:
        message = {
            "ociVersion": VERSION,
            "fds": [FIELD],
            "pid": pid,
            "metadata": self._metadata,
            "state": state,
        }
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as peer:
            try:
                peer.connect(self._path)
            except OSError as error:
                raise OSError(error.errno, error.strerror, self._path) from None
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))
            text = json.dumps(message).encode()
            sent = peer.sendmsg([text], [rights])
            if text[sent:]:  # or nothing is sent to a peer that has all of it, and may have gone
                peer.sendall(text[sent:])

    def close(self) -> None:
        """In the runtime: leave it to the two."""
        for descriptor in (*self._asked, *self._done):
            if descriptor >= 0:
                os.close(descriptor)


def _taken(pid: int, descriptor: int) -> int:
    """Return a copy of another process's descriptor, pidfd_getfd(2)."""
    process = os.pidfd_open(pid)
    words = [ctypes.c_long(each) for each in (_NR_PIDFD_GETFD, process, descriptor, 0)]
    return linux.checked(linux.libc().syscall(*words), "pidfd_getfd")
