"""The daemon's side: keeps one zygote running, and one child of it in reserve.

Every child has a socket of its own, so threads need no lock while they wait, and
end of file on it proves that the child is not alive: neither the zygote nor it
holds the other end any more. That is what makes asking a second zygote safe.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from windlass.contracts.zygote import Child, Zygote
from windlass.errors import Internal, Unavailable, in_words
from windlass.process import nofile
from windlass.typing import override
from windlass_linux import sealing
from windlass_zygote import messages
from windlass_zygote.process import FAILED

BOOT = (
    "import sys; sys.path[:] = sys.argv[1].split(':'); from windlass_zygote.process import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)

#: Addressed to the daemon alone: a child that passed them on would speak in its name.
DAEMON_ONLY = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")

STOP_TIMEOUT = 2.0
FORK_TIMEOUT = 2.0
ATTEMPTS = 3


class WaitingChild:
    """A child that a zygote has been asked for; owns the socket on which it waits for its request."""

    def __init__(self, sock: socket.socket, control: socket.socket) -> None:
        """Know the child behind ``sock``, which the zygote behind ``control`` forks or has forked."""
        self.control = control
        self._socket = sock

    def run(self, entry: str, arguments: Sequence[str], descriptors: Sequence[int], deadline: float) -> Child | None:
        """Have the child run ``entry``; None when it has died before, and then nothing has been run.

        Raises TimeoutError, and Internal for what the child cannot run; either way
        the child is gone.
        """
        with self._socket as sock:
            pidfds: list[int] = []
            try:
                pid, pidfds = messages.receive(sock, deadline - time.monotonic())
                if not checked(pid, entry):
                    return None
                if not pidfds:
                    # Linux leaves out what there is no room for. Without a request the child ends.
                    raise Unavailable(f"no child for {entry}: too many open files")
                messages.send(sock, (entry, list(arguments)), descriptors, deadline - time.monotonic())
                if not checked(messages.receive(sock, deadline - time.monotonic())[0], entry):
                    return None
                return Child(int(pid), pidfds.pop())
            except TimeoutError:
                for pidfd in pidfds:
                    kill(pidfd)
                raise
            except (BrokenPipeError, ConnectionResetError):
                return None
            finally:
                for pidfd in pidfds:
                    os.close(pidfd)

    def close(self) -> None:
        """Let the child end without a request."""
        self._socket.close()


def checked(answer: bytes, entry: str) -> bytes:
    """Return an answer. Raises Internal for one that says what went wrong."""
    text = answer.decode(errors="replace")
    if text.startswith(FAILED):
        raise Internal(f"cannot run {entry}: {text.removeprefix(FAILED)}")
    return answer


@contextlib.contextmanager
def executable(path: str) -> Iterator[int]:
    """Open a program by which containers, which its children enter, cannot write to the host's. Raises OSError."""
    descriptor = sealing.sealed(shutil.which(path) or path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def kill(pidfd: int) -> None:
    """Kill a child that may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


class ForkingZygote(Zygote):
    """A process of its own, replaced when it dies or hangs."""

    def __init__(self, executable: str = sys.executable) -> None:
        self._executable = executable
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reserve: WaitingChild | None = None
        self._modules: list[str] = []
        self._closed = False

    @property
    def pid(self) -> int:
        """The zygote's process, 0 when none runs."""
        process = self._process
        return process.pid if process else 0

    def start(self) -> None:
        """Start the zygote if none runs; the caller does not wait for its imports."""
        with self._lock:
            self._running()

    @override
    def preload(self, modules: Sequence[str]) -> None:
        # One that cannot be imported is reported on standard error.
        with self._lock:
            fresh = [module for module in modules if module not in self._modules]
            self._modules += fresh
            if self._control is None:
                self._running()
            elif fresh:
                self._drop_reserve()
                try:
                    messages.send(self._control, fresh)
                except (OSError, TimeoutError):
                    # Dead or hanging; its successor imports all of `_modules`.
                    self._end()

    @override
    def spawn(self, entry: str, arguments: Sequence[str], descriptors: Sequence[int], timeout: float = 10.0) -> Child:
        # By a child that is in reserve, or a new one.
        try:
            return self._spawn(entry, arguments, descriptors, timeout)
        except OSError as error:
            raise Unavailable(f"no child for {entry}: {in_words(error)}") from error

    def _spawn(self, entry: str, arguments: Sequence[str], descriptors: Sequence[int], timeout: float) -> Child:
        deadline = time.monotonic() + timeout
        for _ in range(ATTEMPTS):
            with self._lock:
                waiting, self._reserve = self._reserve or self._ask_for_child(), None
            try:
                child = waiting.run(entry, arguments, descriptors, deadline)
            except TimeoutError as error:
                self._replace(waiting.control)
                raise Unavailable(f"no child for {entry}: the zygote did not answer in time") from error
            if child is not None:
                self._refill()
                return child
            self._give_up(waiting)
        raise Unavailable(f"no child for {entry}: the zygote dies at once; see the daemon's standard error")

    def close(self) -> None:
        """Let the zygote end; children that it forked live on, but for the one in reserve."""
        with self._lock:
            self._closed = True
            self._end()

    def _ask_for_child(self) -> WaitingChild:
        """Ask the zygote, or a new one, for a child; the lock is held."""
        for _ in range(ATTEMPTS):
            control = self._running()
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                try:
                    messages.send(control, None, [theirs.fileno()], FORK_TIMEOUT)
                except (OSError, TimeoutError):
                    mine.close()
                    self._end(0.0)
                    continue
            return WaitingChild(mine, control)
        raise Unavailable("the zygote dies at once; see the daemon's standard error")

    def _refill(self) -> None:
        """Have the next child forked while no caller waits for it."""
        with self._lock:
            if self._reserve is None and self._control is not None and not self._closed:
                try:
                    self._reserve = self._ask_for_child()
                except (Unavailable, OSError):
                    return  # the next caller that needs a child gets the error

    def _give_up(self, waiting: WaitingChild) -> None:
        """Ask no zygote any more whose child has ended unasked, unless it has been replaced already."""
        waiting.close()
        self._replace(waiting.control)

    def _running(self) -> socket.socket:
        if self._closed:
            raise Unavailable("the zygote is closed: the daemon is stopping")
        if self._control is None:
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = self._execute(theirs.fileno())
            self._control = mine
            if self._modules:
                messages.send(mine, self._modules)
        return self._control

    def _execute(self, descriptor: int) -> subprocess.Popen[bytes]:
        paths = [os.path.abspath(path) for path in sys.path if path]  # noqa: PTH100 -- zip files and missing paths too
        environment = {name: value for name, value in os.environ.items() if name not in DAEMON_ONLY}
        # -I -S: nothing but the daemon's own sys.path decides what is imported; .pth files would cost memory.
        options = ["-I", "-S", "-X", "no_debug_ranges"]
        with executable(self._executable) as program:
            return subprocess.Popen(
                [self._executable, *options, "-c", BOOT, ":".join(paths), str(descriptor), str(nofile.found_limit())],
                executable=f"/proc/self/fd/{program}",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[descriptor, program],
                start_new_session=True,
                env=environment,
                cwd="/",
            )

    def _drop_reserve(self) -> None:
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None

    def _replace(self, control: socket.socket) -> None:
        with self._lock:
            if self._control is control:
                self._end(0.0)

    def _end(self, patience: float = STOP_TIMEOUT) -> None:
        """Close the socket, which ends a healthy zygote, and kill one that has not gone after ``patience``."""
        self._drop_reserve()
        control, process = self._control, self._process
        self._control = self._process = None
        if control is not None:
            control.close()
        if process is not None:
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT)
