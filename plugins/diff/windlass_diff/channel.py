"""The worker's end of the socket to the daemon: one JSON object per packet.

The daemon sends the request; the worker sends its step about once a second
while it gets on, and in the end a result or an error. The worker dies with the
daemon: end of file on the socket ends the process.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from windlass.errors import Error, Internal, in_words
from windlass_diff.messages import Record, Request, Result
from windlass_storage.disks import explained

MAX_PACKET = 192 << 10
"""Fits the default send buffer of a socket (212,992 bytes); mounts with many layers need about 20 KiB."""
PERIOD = 1.0
CHECKED_EVERY = 64


class Channel:
    """Carries a worker's progress and outcome."""

    def __init__(self, descriptor: int) -> None:
        """Take over the connected SOCK_SEQPACKET socket ``descriptor``."""
        self._socket = socket.socket(fileno=descriptor)
        self._step = ""
        self._next = 0.0
        self._calls = 0

    def request(self, prepare: Callable[[Request], None] | None = None) -> Request:
        """Return what the daemon asks for, and from now on end when the daemon does.

        ``prepare`` is called with it while there is no other thread yet.
        """
        data = self._socket.recv(MAX_PACKET)
        if not data:
            os._exit(1)
        request: Request = json.loads(data)
        if prepare is not None:
            prepare(request)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        return request

    def step(self, name: str) -> None:
        """Say what begins now; it is named when it turns out to take too long."""
        self._step = name
        self._send({"step": name})

    def progress(self) -> None:
        """Say that the step gets on; cheap enough to be called for every file."""
        self._calls += 1
        if self._calls % CHECKED_EVERY == 0 and time.monotonic() >= self._next:
            self._send({"step": self._step})

    def alive(self) -> None:
        """Say that the step gets on, now; for those who ask once a second or so."""
        self._send({"step": self._step})

    def run(self, work: Callable[[], Result]) -> int:
        """Send what ``work`` returns or raises, and return the process's exit status."""
        try:
            self._send({"result": work()})
        except Error as error:
            self._send({"error": error.code, "message": str(error)})
            return 1
        except OSError as error:
            # For its class alone: Linux says where.
            refused = explained(error, self._step, Path("/"))
            code = refused.code if refused else Internal.code
            self._send({"error": code, "message": f"{self._step}: {in_words(error)}"})
            return 1
        return 0

    def _send(self, record: Record) -> None:
        self._next = time.monotonic() + PERIOD
        try:
            self._socket.send(json.dumps(record).encode(), socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(1)

    def _watch(self) -> None:
        try:
            while self._socket.recv(1):
                pass
        except OSError:
            pass
        os._exit(1)
