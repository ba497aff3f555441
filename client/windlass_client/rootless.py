"""Finds a plain user's daemon, and enters its namespaces: every path is there as for root (docs/rootless.md).

Imported for each command of a plain user, so it imports little.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

ENTERED = "WINDLASS_ENTERED"
"""Set in the environment of a client that is inside."""
NAMESPACES = ("user", "mnt", "net", "ipc", "pid")


def directory() -> str:
    """Return where a plain user's daemon has its sockets, "" without XDG_RUNTIME_DIR."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return f"{runtime}/windlass" if runtime and os.geteuid() else ""


def address(default: str) -> str:
    """Return the socket of the user's own daemon as it is seen from outside, the default where there is none."""
    path = f"{directory()}/windlass.sock"
    return path if directory() and os.path.exists(path) else default  # noqa: PTH110 -- no pathlib here


def first_process() -> int:
    """Return the PID of the first process of the user's daemon, 0 when none runs."""
    place = directory()
    try:
        descriptor = os.open(f"{place}/rootless.pid", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        # locked by its launcher, so the PID is nobody else's by now
        text = os.read(descriptor, 32).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return 0


def enter() -> bool:
    """Go on as root of the user's rootless daemon; False, and nothing is changed, when there is none.

    The call returns in a child, since only a child gets to the PID namespace; this process passes signals on to it, and
    ends with its exit code.
    """
    first = first_process() if directory() else 0
    if not first:
        return False
    from windlass_linux import calls as linux

    here = os.getcwd()  # noqa: PTH109 -- no pathlib here
    # One that is the host's, such as the network with --network host, may not be entered, and need not be.
    places = {f"/proc/{first}/ns/{kind}": f"/proc/self/ns/{kind}" for kind in NAMESPACES}
    other = [place for place, own in places.items() if os.stat(place).st_ino != os.stat(own).st_ino]  # noqa: PTH116
    found = [os.open(place, os.O_RDONLY | os.O_CLOEXEC) for place in other]
    for descriptor in found:
        linux.setns(descriptor)
        os.close(descriptor)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.environ[ENTERED] = str(first)
    child = os.fork()
    if child:
        _follow(child)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        os.chdir(here)
    except OSError:
        os.chdir("/")
    return True


def _follow(child: int) -> None:
    """Wait for a child and end as it did. Never returns."""

    def forward(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    # The terminal sends these to both.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, forward)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.stdout.flush()
    os._exit(code if code >= 0 else 128 - code)
