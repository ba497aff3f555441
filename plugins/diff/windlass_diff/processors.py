"""Runs stream processors in a worker: programs in a row, each reading what the one before it writes.

A program is given the layer on standard input, its media type in ``STREAM_PROCESSOR_MEDIATYPE`` and its payload, if
there is one, on descriptor 3. It and all that it starts are in a PID namespace, which ends with it, and it ends with
the worker: nothing outlives a layer.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from typing import NoReturn

from windlass.errors import DeadlineExceeded, FailedPrecondition, Internal
from windlass.process import nofile
from windlass_linux import calls as linux

MEDIA_TYPE = "STREAM_PROCESSOR_MEDIATYPE"
PAYLOAD = 3
"""Where a program finds its payload."""
KEPT = 4096
SHOWN = 400
"""Bytes of what a program says on standard error that are kept, and characters that a message shows: the last ones."""
EXIT_PATIENCE = 10.0
LAST_WORDS = 1.0
"""Seconds for a program that may have failed to end, when the layer turned out to be damaged."""

# Row: what is in a request (`windlass_diff.chain.rows`).
Row = Sequence[object]


class Chain:
    """The programs that run; close it, which ends them."""

    def __init__(self, rows: Sequence[Row], blob: int, payloads: Sequence[int]) -> None:
        """Start them, the first on the blob ``blob``, with ``payloads`` being descriptors of files."""
        # Opened anew: the offset of a descriptor that was passed to us is not ours alone.
        self._blob = os.open(f"/proc/self/fd/{blob}", os.O_RDONLY | os.O_CLOEXEC)
        self._offset = 0
        self._programs: list[Program] = []
        source = self._blob
        try:
            for row in rows:
                self._programs.append(Program(row, source, payloads))
                if source != self._blob:
                    os.close(source)
                source = self._programs[-1].output
        except BaseException:
            self.close()
            raise

    @property
    def output(self) -> int:
        """The descriptor to read the layer from."""
        return self._programs[-1].output

    def reads(self) -> bool:
        """Return whether the first program has read anything since this was last asked."""
        before, self._offset = self._offset, os.lseek(self._blob, 0, os.SEEK_CUR)
        return self._offset != before

    def check(self) -> None:
        """Wait for the programs, whose output has ended. Raises Internal for those that failed."""
        self._raise_failures(EXIT_PATIENCE)
        for program in self._programs:
            if program.status is None:
                raise DeadlineExceeded(f"{program} has ended its output and does not exit")

    def explain(self) -> None:
        """Raise Internal if a program has failed, which then is why the layer seems damaged."""
        self._raise_failures(LAST_WORDS)

    def _raise_failures(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        for program in self._programs:
            program.wait(deadline - time.monotonic())
        if reasons := [reason for program in self._programs if (reason := program.failure())]:
            raise Internal("; ".join(reasons))

    def close(self) -> None:
        """End what still runs, and release everything."""
        for program in self._programs:
            program.close()
        os.close(self._blob)


class Program:
    """One process and the pipe that it writes to, which is closed by the reader at its end."""

    def __init__(self, row: Row, source: int, payloads: Sequence[int]) -> None:
        """Execute what ``row`` says. Raises FailedPrecondition when it is not there."""
        self.id, media_type, path, arguments, more, payload = row
        assert isinstance(path, str) and isinstance(arguments, list) and isinstance(more, list)
        program = shutil.which(path)
        if program is None:
            raise FailedPrecondition(f"{self}: there is no program {path}; install it, or correct its path")
        environment = {**os.environ, **dict(each.partition("=")[::2] for each in more), MEDIA_TYPE: str(media_type)}
        self.status: int | None = None
        self._said = b""
        self.output, out = os.pipe2(os.O_CLOEXEC)
        heard, error = os.pipe2(os.O_CLOEXEC)
        descriptors = [source, out, error, *([payloads[payload]] if isinstance(payload, int) and payload >= 0 else [])]
        try:
            self._pid = _start(program, [path, *arguments], environment, descriptors)
        finally:
            os.close(out)
            os.close(error)
        self._pidfd = os.pidfd_open(self._pid)
        self._listener = threading.Thread(target=self._listen, args=(heard,), name="stderr", daemon=True)
        self._listener.start()

    def __str__(self) -> str:
        return f"stream processor {self.id}"

    def wait(self, patience: float) -> None:
        """Wait for the exit, for so many seconds; `status` is there if it has come."""
        if self.status is not None:
            return
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if poll.poll(max(0.0, patience) * 1000):
            _, self.status = os.waitpid(self._pid, 0)
            # All that could write to it has gone with the namespace.
            self._listener.join()

    def failure(self) -> str:
        """Return how it has failed and what it said of it, empty if it has not."""
        if not self.status:
            return ""
        code = os.waitstatus_to_exitcode(self.status)
        how = f"exited with status {code}" if code >= 0 else f"was killed by signal {-code}"
        said = " ".join(self._said.decode(errors="replace").split())[-SHOWN:]
        return f"{self} {how}{': ' if said else ''}{said}"

    def close(self) -> None:
        """Kill it if it runs, and release it."""
        if self.status is None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self.wait(EXIT_PATIENCE)
        os.close(self._pidfd)

    def _listen(self, heard: int) -> None:
        # To the end, or the program would wait for us; of what it says the end is kept.
        while data := os.read(heard, 1 << 16):
            self._said = (self._said + data)[-KEPT:]
        os.close(heard)


def _start(program: str, arguments: Sequence[str], environment: dict[str, str], descriptors: Sequence[int]) -> int:
    """Execute a program with ``descriptors`` as 0, 1 and so on, and with nothing else open; return its PID."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # pid_namespaces(7): the next child is the first process of a new one, whose end is that of all others.
        linux.unshare(linux.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                _become(program, arguments, environment, descriptors)
        finally:
            linux.setns(own, linux.CLONE_NEWPID)
    finally:
        os.close(own)
    return pid


def _become(
    program: str, arguments: Sequence[str], environment: dict[str, str], descriptors: Sequence[int]
) -> NoReturn:
    try:
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        # Out of the way first: one may have the number of another's place.
        above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, PAYLOAD + 1) for descriptor in descriptors]
        for number, descriptor in enumerate(above):
            os.dup2(descriptor, number)
        linux.close_range(len(above))
        with nofile.Found():
            os.execve(program, list(arguments), environment)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, f"it cannot be executed: {error.strerror}".encode())
    finally:
        os._exit(127)
