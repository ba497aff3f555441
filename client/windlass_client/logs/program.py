"""The program that reads a container's output: it keeps the log and shows the output to clients.

The shim starts it for each task (``binary://``), ours as well as containerd's: descriptors 3 and 4 are the output, 5
says that it is ready, and the working directory is the bundle. It ends after the container's first process, whose pid
the bundle's `init.pid` has: containerd's shim does not close the output by then. A daemon that is killed does not
matter to it.
"""

from __future__ import annotations

import fcntl
import os
import select
import time
from _signal import (  # type: ignore[import-not-found] # what is public imports enum
    SIG_IGN,
    SIGHUP,
    SIGINT,
    SIGPIPE,
    SIGTERM,
    signal,
)

from windlass_client.logs.jsonfile import STDERR, STDOUT, Writer
from windlass_client.logs.viewers import Viewers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OUTPUTS = {3: STDOUT, 4: STDERR}
READY = 5
BUNDLE = "WINDLASS_BUNDLE"
"""Variable: the directory of `init.pid`, where a client and not the shim has started the program."""
CHUNK = 32 << 10
QUIET = 0.15
"""Seconds of silence after the end of the first process that mean that the shim has copied all of its terminal.

Without a terminal the process itself has written to our pipe, so that all is there.
"""
LOCK = "lock"
STDIN = "stdin"
"""The FIFO beside the log."""
LOCK_PATIENCE = 5.0
FIRST_LOOKS, SOON, LATER = 250, 0.02, 0.5


class Program:
    """Reads until the container has ended."""

    def __init__(self, writer: Writer | None, viewers: Viewers, bundle: str, quiet: float) -> None:
        self._writer = writer
        self._quiet = quiet
        self.viewers = viewers
        self._bundle = bundle
        self._outputs = dict(OUTPUTS)
        self._looks = 0
        self._pidfd = -1
        self._ended = False

    def run(self) -> None:
        """Return when the output has ended, or the first process has and no more comes."""
        while self._outputs:
            behind = not self._ended and self.viewers.are_behind()
            events = self._poll(() if behind else self._outputs, self._timeout())
            for fd, what in events:
                self._handle(fd, what)
            self.viewers.sweep()
            if self._ended and not events:
                return
            if self._pidfd < 0 and not self._ended:
                self._find_process()

    def end(self, *_: object) -> None:
        """Read only what is there."""
        self._ended = True

    def finish(self) -> None:
        """Send what clients have not read yet, in a process that the shim does not wait for."""
        self.viewers.close()
        if any(viewer.size for viewer in self.viewers.by_fd.values()) and os.fork():
            return
        for viewer in self.viewers.by_fd.values():
            viewer.leave()
        self.viewers.sweep()
        while self.viewers.by_fd:
            for fd, what in self._poll((), None):
                self._handle(fd, what)
            self.viewers.sweep()

    def _timeout(self) -> float | None:
        if self._ended:
            return self._quiet
        if self._pidfd >= 0:
            return None
        return SOON if self._looks < FIRST_LOOKS else LATER

    def _poll(self, outputs: Sequence[int] | dict[int, int], timeout: float | None) -> list[tuple[int, int]]:
        poll = select.poll()
        # Events come in this order: a client that was there before the output is to see it.
        if self.viewers.fd >= 0 and outputs:
            poll.register(self.viewers.fd, select.POLLIN)
        for fd in outputs:
            poll.register(fd, select.POLLIN)
        for viewer in self.viewers.by_fd.values():
            poll.register(viewer.fd, viewer.events)
        if self._pidfd >= 0 and not self._ended:
            poll.register(self._pidfd, select.POLLIN)
        return poll.poll(None if timeout is None else timeout * 1000)

    def _handle(self, fd: int, events: int) -> None:
        if fd == self._pidfd:
            self._ended = True
        elif fd == self.viewers.fd:
            self.viewers.accept()
        elif fd in OUTPUTS:
            self._read(fd)
        elif viewer := self.viewers.by_fd.get(fd):
            if viewer.has_said_goodbye(events):
                self._catch_up()
                viewer.leave()
            else:
                viewer.flush()

    def _catch_up(self) -> None:
        for fd in list(self._outputs):
            while fd in self._outputs and self._read(fd):
                pass

    def _read(self, fd: int) -> bool:
        """Take what there is; return False if there is nothing now."""
        stream = OUTPUTS[fd]
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            del self._outputs[fd]
            return False
        if self._writer:
            self._writer.write(stream, data)
        # A client that had connected before the output was written sees it, though its turn has not come yet.
        self.viewers.accept()
        self.viewers.send(bytes((stream,)) + data)
        return True

    def _find_process(self) -> None:
        self._looks += 1
        try:
            with open(f"{self._bundle}/init.pid", encoding="ascii") as file:  # noqa: PTH123 - pathlib is too big here
                self._pidfd = os.pidfd_open(int(file.read()))
        except ProcessLookupError:
            self._ended = True
        except (OSError, ValueError):
            pass  # it is not there yet, or written just now


def main(
    directory: str,
    log: str,
    *,
    max_size: int,
    max_files: int,
    terminal: bool = False,
    beside: Sequence[str] = (),
    afterwards: Sequence[str] = (),
    environment: dict[str, str] | None = None,
) -> None:
    """Keep ``log``, if that is not empty, and show output in ``directory``.

    The command ``beside`` runs as long as the container does, ``afterwards`` when it has ended.
    """
    bundle = os.environ.get(BUNDLE) or os.getcwd()  # noqa: PTH109
    os.chdir(directory)
    lock = _lock()
    if terminal:
        _hold_stdin()
    writer = Writer(log, max_size, max_files) if log else None
    program = Program(writer, Viewers(), bundle, QUIET if terminal or BUNDLE in os.environ else 0.0)
    for number in (SIGTERM, SIGINT, SIGHUP):
        signal(number, program.end)
    signal(SIGPIPE, SIG_IGN)
    for fd in OUTPUTS:
        os.set_blocking(fd, False)
    os.close(READY)
    companion = _spawn(beside, environment) if beside else 0
    program.run()
    program.viewers.listen()
    if writer:
        writer.close()
    os.close(lock)
    if companion:
        os.kill(companion, SIGTERM)
    if afterwards and not any(viewer.owns for viewer in program.viewers.by_fd.values()):
        _spawn(afterwards, environment)
    program.finish()


def _lock() -> int:
    """Hold the lock that says that the log still grows; an earlier program of the container may be about to end."""
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + LOCK_PATIENCE
    while time.monotonic() < until:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.01)
    return descriptor


def _hold_stdin() -> None:
    """Keep standard input open until this program ends: containerd's shim closes a terminal whose input ends."""
    try:
        os.open(STDIN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        pass  # a container without standard input


def _spawn(argv: Sequence[str], environment: dict[str, str] | None) -> int:
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, nothing, number) for number in (0, 1, 2)]
    actions += [(os.POSIX_SPAWN_CLOSE, number) for number in OUTPUTS]
    return os.posix_spawn(argv[0], list(argv), {**os.environ, **(environment or {})}, file_actions=actions, setsid=True)
