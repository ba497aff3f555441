"""The daemon's end of a worker: starts it, follows its progress, and ends it when it hangs or is not wanted."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence

from windlass.contracts.zygote import Zygote
from windlass.errors import Cancelled, DeadlineExceeded, Error, Internal, InvalidArgument, from_code
from windlass_diff.channel import MAX_PACKET
from windlass_diff.messages import Record, Request, Result

EXIT_PATIENCE = 10.0
SYNC_PATIENCE = 600.0
"""Seconds for writing a filesystem back, which tells nothing about its progress."""


class Job:
    """One worker process; close it, which kills what is still running."""

    def __init__(
        self, zygote: Zygote, entry: str, subject: str, request: Request, descriptors: Sequence[int] = ()
    ) -> None:
        """Start ``entry`` on ``request``; ``subject`` is what messages are about."""
        self._subject = subject
        self._cancelled = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                child = zygote.spawn(entry, [subject], [theirs.fileno(), *descriptors])
        except BaseException:
            self._socket.close()
            raise
        self._pidfd = child.pidfd
        self._request = json.dumps(request).encode()

    def result(
        self, patience: float, source: int | None = None, sink: Callable[[bytes], object] | None = None
    ) -> Result:
        """Return the worker's result, passing what comes through the pipe ``source`` on to ``sink`` meanwhile.

        Raises the worker's error; DeadlineExceeded when it tells nothing for ``patience`` seconds.
        """
        outcome: Result | None = None
        step = "start"
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if source is not None:
            poll.register(source, select.POLLIN)
        self._send_request()
        deadline = time.monotonic() + patience
        # The pipe has to be read to its end, also when the result has come.
        while outcome is None or source is not None:
            ready = [fd for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)]
            if not ready:
                stalled = f"the worker made no progress for {patience:g} s (step: {step})"
                raise DeadlineExceeded(f"{self._subject}: {stalled}")
            deadline = time.monotonic() + patience
            if source is not None and source in ready and not _pass_on(source, sink):
                poll.unregister(source)
                source = None
            if self._socket.fileno() in ready:
                record = self._receive()
                if "step" in record:
                    step = record["step"]
                    deadline = time.monotonic() + (SYNC_PATIENCE if step == "sync" else patience)
                elif "error" in record:
                    raise self._error(record)
                else:
                    outcome = record["result"]
                    poll.unregister(self._socket)
        self._wait_for_exit()
        return outcome

    def kill(self) -> None:
        """Kill the worker; who waits in `result` gets Cancelled. May be called from any thread until `close`."""
        self._cancelled = True
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        """Kill the worker if it runs, wait until it has gone, and release it."""
        self.kill()
        self._wait_for_exit()
        self._socket.close()
        os.close(self._pidfd)

    def _send_request(self) -> None:
        if len(self._request) > MAX_PACKET:
            raise InvalidArgument(f"{self._subject}: mounts of {len(self._request)} bytes, the limit is {MAX_PACKET}")
        try:
            self._socket.send(self._request, socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None

    def _receive(self) -> Record:
        try:
            data = self._socket.recv(MAX_PACKET)
        except ConnectionResetError:
            data = b""
        if not data:
            raise self._died()
        record: Record = json.loads(data)
        return record

    def _died(self) -> Error:
        if self._cancelled:
            return Cancelled(f"{self._subject}: the worker was stopped")
        return Internal(f"{self._subject}: the worker died; the daemon's standard error has the reason")

    def _error(self, record: Record) -> Error:
        return from_code(record["error"], f"{self._subject}: {record['message']}")

    def _wait_for_exit(self) -> None:
        # What it had mounted is free for others only when it has gone.
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.poll(EXIT_PATIENCE * 1000)


def _pass_on(source: int, sink: Callable[[bytes], object] | None) -> bool:
    """Pass what is in a pipe on to ``sink``; return False at its end."""
    data = os.read(source, 1 << 20)
    if data and sink is not None:
        sink(data)
    return bool(data)
