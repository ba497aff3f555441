"""What is kept of a container, `ROOT/ID/`: `state.json`, and the FIFO by which init is started.

The directory is made first, so a name is one container's; `state.json` comes last, so what has none is half made.
"""

from __future__ import annotations

import json
import os
import time

from windlass.errors import AlreadyExists, InvalidArgument, NotFound
from windlass_oci_runtime import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_oci_runtime.json_types import Document

VERSION = "1.2.0"
FILE, FIFO = "state.json", "exec.fifo"
MOST_ID = 1024
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")

CREATING, CREATED, RUNNING, STOPPED, PAUSED = "creating", "created", "running", "stopped", "paused"


class Container:
    """A container by its name."""

    __slots__ = ("directory", "id")

    def __init__(self, root: str, id: str) -> None:
        if not id or len(id) > MOST_ID or id[0] == "." or not LETTERS.issuperset(id):
            raise InvalidArgument(f"container ID {id[:80]!r} is not valid; use letters, digits and _ + - .")
        self.id = id
        self.directory = f"{root}/{id}"

    def reserve(self) -> None:
        """Take the name. Raises AlreadyExists."""
        os.makedirs(os.path.dirname(self.directory), mode=0o711, exist_ok=True)
        try:
            os.mkdir(self.directory, 0o711)
        except FileExistsError:
            raise AlreadyExists(f"container with given ID already exists: {self.id}") from None

    def make_fifo(self) -> int:
        """Make the FIFO, and open it such that init can wait for a byte of it, and ends up with no writer's end."""
        path = f"{self.directory}/{FIFO}"
        os.mkfifo(path, 0o600)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def write(self, state: Document) -> None:
        """Keep a state; readers see the old one or the new one."""
        path = f"{self.directory}/{FILE}"
        with open(f"{path}.new", "wb") as file:
            # Not json.dump, which goes through a document in Python.
            file.write(json.dumps(state).encode())
        os.rename(f"{path}.new", path)

    def read(self) -> Document:
        """Return the state. Raises NotFound."""
        try:
            with open(f"{self.directory}/{FILE}", "rb") as file:
                found: Document = json.load(file)
        except FileNotFoundError:
            raise NotFound(f"container {self.id} does not exist") from None
        return found

    def start(self) -> None:
        """Let init go on. Raises FileNotFoundError if it was started, OSError ENXIO if nobody waits."""
        path = f"{self.directory}/{FIFO}"
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"0")
        finally:
            os.close(descriptor)
        os.unlink(path)

    def remove(self) -> None:
        """Forget the container; what is missing already is fine."""
        for name in (FIFO, f"{FILE}.new", FILE):
            try:
                os.unlink(f"{self.directory}/{name}")
            except FileNotFoundError:
                continue
        try:
            os.rmdir(self.directory)
        except FileNotFoundError:
            pass

    def status(self, state: Document) -> str:
        """Return what the container does now."""
        if not is_alive(state["pid"], state["started"]):
            return STOPPED
        if os.path.exists(f"{self.directory}/{FIFO}"):
            return CREATED
        return PAUSED if cgroups.is_frozen(state["cgroups"]) else RUNNING


def started_at(pid: int) -> int:
    """Return when a process began, in ticks since the boot; with the pid that is one process. Raises OSError."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def is_alive(pid: int, started: int) -> bool:
    """Return whether a process still runs, and is not another one with its pid."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return int(fields[19]) == started and fields[0] not in (b"Z", b"X")


def now() -> str:
    """Return the time as RFC 3339."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"
