"""The daemon's side: keeps one zygote running and asks it for children.

Every request carries the socket for its own answer, so threads need no lock
while they wait, and end of file on it proves that no child is alive: neither the
zygote nor a child holds the other end any more. That is what makes asking a
second zygote safe.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from windlass.errors import Internal, Unavailable
from windlass.zygote import Child
from windlass_zygote import messages

BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from windlass_zygote.process import main; main(int(sys.argv[2]))"
)

#: Addressed to the daemon alone: a child that passed them on would speak in its name.
DAEMON_ONLY = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")

STOP_TIMEOUT = 2.0


class ForkingZygote:
    """Implements `windlass.zygote.Zygote` by a process of its own, replaced when it dies or hangs."""

    def __init__(self, executable: str = sys.executable) -> None:
        self._executable = executable
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._modules: list[str] = []
        self._closed = False

    @property
    def pid(self) -> int:
        """The zygote's process, 0 when none runs."""
        process = self._process
        return process.pid if process else 0

    def start(self) -> None:
        """Start the zygote if none runs; its imports go on behind the caller's back."""
        with self._lock:
            self._running()

    def preload(self, modules: Sequence[str]) -> None:
        """Have ``modules`` imported before any further child is forked; one that fails is reported on stderr."""
        with self._lock:
            fresh = [module for module in modules if module not in self._modules]
            self._modules += fresh
            if self._control is not None and fresh:
                try:
                    messages.send(self._control, {"preload": fresh})
                except (OSError, TimeoutError):
                    # Dead or hanging; its successor is told all of `_modules`.
                    self._end()

    def spawn(self, entry: str, arguments: Sequence[str], descriptors: Sequence[int], timeout: float = 10.0) -> Child:
        """Fork a process that runs ``entry``; see the contract."""
        deadline = time.monotonic() + timeout
        request = {"entry": entry, "arguments": list(arguments), "timeout": timeout}
        for _ in range(3):
            with self._lock:
                control = self._running()
            answer = self._ask(control, request, descriptors, deadline)
            if answer is not None:
                return answer
            self._replace(control)
        raise Unavailable(f"no child for {entry}: the zygote dies at once; see the daemon's standard error")

    def close(self) -> None:
        """Let the zygote end; children that it forked live on."""
        with self._lock:
            self._closed = True
            self._end()

    def _ask(
        self, control: socket.socket, request: dict[str, object], descriptors: Sequence[int], deadline: float
    ) -> Child | None:
        """Return the child, or None when the zygote died before there was one."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with mine:
            try:
                with theirs:
                    messages.send(control, request, [theirs.fileno(), *descriptors], deadline - time.monotonic())
                answer, received = messages.receive(mine, deadline - time.monotonic())
            except TimeoutError as error:
                self._replace(control)
                raise Unavailable(f"no child for {request['entry']}: the zygote did not answer in time") from error
            except (BrokenPipeError, ConnectionResetError):
                return None
            except OSError:
                # Another thread has just replaced the zygote and closed its socket.
                if control.fileno() < 0:
                    return None
                raise
            if answer is None:
                return None
            if "error" in answer:
                raise Internal(f"cannot run {request['entry']}: {answer['error']}")
            return self._accept(mine, answer["pid"], received)

    @staticmethod
    def _accept(mine: socket.socket, pid: int, received: list[int]) -> Child | None:
        # The child runs only after this byte: one whose caller has given up must not.
        try:
            mine.send(b"+", socket.MSG_NOSIGNAL)
        except OSError:
            os.close(received[0])
            return None
        return Child(pid, received[0])

    def _running(self) -> socket.socket:
        if self._closed:
            raise Unavailable("the zygote is closed: the daemon is stopping")
        if self._control is None:
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = self._execute(theirs.fileno())
            self._control = mine
            if self._modules:
                messages.send(mine, {"preload": self._modules})
        return self._control

    def _execute(self, descriptor: int) -> subprocess.Popen[bytes]:
        paths = [os.path.abspath(path) for path in sys.path if path]  # noqa: PTH100 -- zip files and missing paths too
        environment = {name: value for name, value in os.environ.items() if name not in DAEMON_ONLY}
        # -I -S: nothing but the daemon's own sys.path decides what is imported; .pth files would cost memory.
        options = ["-I", "-S", "-X", "no_debug_ranges"]
        return subprocess.Popen(
            [self._executable, *options, "-c", BOOT, json.dumps(paths), str(descriptor)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[descriptor],
            start_new_session=True,
            env=environment,
            cwd="/",
        )

    def _replace(self, control: socket.socket) -> None:
        with self._lock:
            if self._control is control:
                self._end(0.0)

    def _end(self, patience: float = STOP_TIMEOUT) -> None:
        """Close the socket, which ends a healthy zygote, and kill one that has not gone after ``patience``."""
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
