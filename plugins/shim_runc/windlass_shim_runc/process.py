"""A process of a container and its states.

The states and what may be asked in each are one table (docs/containerd 4.7). An exec
is never paused itself; it shows its init's pause.
"""

from __future__ import annotations

from windlass.errors import Error, NotFound
from windlass_shim_runc import disk
from windlass_shim_runc.loop import Flag, Loop
from windlass_shim_runc.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_shim_runc import streams
    from windlass_shim_runc.keeper import Luggage

    Left = tuple[int, int, tuple[int, int], tuple[bool, bool], bytes, streams.Left]

CREATED, RUNNING, STOPPED, PAUSED, DELETED = 1, 2, 3, 4, 0
"""The wire's numbers of containerd.v1.types.Status; a deleted process is never shown."""

STATE_NAMES = {CREATED: "created", RUNNING: "running", STOPPED: "stopped", PAUSED: "paused", DELETED: "deleted"}

TRANSITIONS: dict[tuple[int, str], int] = {
    (CREATED, "start"): RUNNING,
    (CREATED, "exit"): STOPPED,
    (CREATED, "delete"): DELETED,
    (CREATED, "exec"): CREATED,
    (CREATED, "update"): CREATED,
    (RUNNING, "pause"): PAUSED,
    (RUNNING, "checkpoint"): RUNNING,
    (RUNNING, "exit"): STOPPED,
    (RUNNING, "exec"): RUNNING,
    (RUNNING, "update"): RUNNING,
    (PAUSED, "resume"): RUNNING,
    (PAUSED, "checkpoint"): PAUSED,
    (PAUSED, "exit"): STOPPED,
    (PAUSED, "update"): PAUSED,
    (STOPPED, "delete"): DELETED,
}


class Process:
    """The init of a container, or an exec beside it."""

    __slots__ = (
        "busy",
        "exec_id",
        "exit_status",
        "exited",
        "exited_at",
        "id",
        "pid",
        "reported",
        "spec",
        "state",
        "streams",
    )

    def __init__(self, loop: Loop, id: str, exec_id: str, streams: Streams, spec: bytes = b"") -> None:
        self.id = id
        self.exec_id = exec_id
        self.streams = streams
        self.spec = spec
        self.pid = 0
        self.state = CREATED
        self.exit_status = 0
        self.exited_at = 0
        self.exited = Flag(loop)
        self.reported = Flag(loop)
        """Set when the exit has been published."""
        self.busy: Flag | None = None
        """Set while a start is under way, whose event must precede the exit's."""

    def check(self, verb: str) -> int:
        """Return the state that ``verb`` leads to; raises Error when it cannot be done now."""
        try:
            return TRANSITIONS[self.state, verb]
        except KeyError:
            if self.state == DELETED:
                raise NotFound(f"{self.exec_id or self.id} has been deleted") from None
            kind = "process" if self.exec_id else "container"
            name = self.exec_id or self.id
            remedy = "; kill it first" if (verb, self.state) == ("delete", RUNNING) else ""
            raise Error(f"cannot {verb} a {STATE_NAMES[self.state]} {kind}: {name}{remedy}") from None

    def on_exit(self, status: int, at: int) -> None:
        """Record the end; called by the reaper, before anything else can act on the pid."""
        self.exit_status, self.exited_at = status, at
        self.state = TRANSITIONS.get((self.state, "exit"), STOPPED)
        self.exited.set()

    def leave(self, luggage: Luggage) -> Left:
        """Return what `take_over` goes on with, at a moment when nothing is under way."""
        flags = self.exited.is_set, self.reported.is_set
        ended = self.exit_status, self.exited_at
        return self.pid, self.state, ended, flags, self.spec, self.streams.leave(luggage)

    def take_over(self, luggage: Luggage, state: Left) -> None:
        """Be the process that was left."""
        self.pid, self.state, (self.exit_status, self.exited_at), flags, self.spec, streams = state
        self.streams.take_over(luggage, streams)
        for flag, is_set in zip((self.exited, self.reported), flags, strict=True):
            if is_set:
                flag.set()


def is_first_of_its_namespace(pid: int) -> bool:
    """Whether Linux will kill everything in the pid namespace when ``pid`` ends; False when that cannot be told."""
    try:
        status = disk.read(f"/proc/{pid}/status")
    except OSError:
        return False
    _, _, rest = status.partition(b"\nNSpid:")
    numbers = rest.partition(b"\n")[0].split()
    return len(numbers) > 1 and numbers[-1] == b"1"
