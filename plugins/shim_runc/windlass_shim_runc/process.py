"""A process of a container and its states.

The states and what may be asked in each are one table (docs/containerd 4.7). An exec
is never paused itself; it shows its init's pause.
"""

from __future__ import annotations

import os

from windlass.errors import Error, NotFound
from windlass_shim_runc import disk, records
from windlass_shim_runc.log import log
from windlass_shim_runc.loop import Flag, Loop
from windlass_shim_runc.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_shim_runc.keeper import Handover

IO_TIMEOUT = 10.0
"""How long a delete waits for output that is not read."""

REPORT_TIMEOUT = 20.0
"""How long a delete waits for the exit event of what it deletes: longer than init waits for its execs' events."""

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
    """The init of a container, or an exec in it."""

    __slots__ = (
        "exec_id",
        "exit_status",
        "exited",
        "exited_at",
        "id",
        "pid",
        "reported",
        "spec",
        "starting",
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
        self.starting: Flag | None = None
        """Set while a start is under way, whose event must precede the exit's."""

    @property
    def name(self) -> str:
        """The exec's ID, for init the container's."""
        return self.exec_id or self.id

    def check(self, verb: str) -> int:
        """Return the state that ``verb`` leads to; raises Error when it cannot be done now."""
        try:
            return TRANSITIONS[self.state, verb]
        except KeyError:
            if self.state == DELETED:
                raise NotFound(f"{self.name} has been deleted") from None
            kind = "process" if self.exec_id else "container"
            remedy = "; kill it first" if (verb, self.state) == ("delete", RUNNING) else ""
            raise Error(f"cannot {verb} a {STATE_NAMES[self.state]} {kind}: {self.name}{remedy}") from None

    def on_exit(self, status: int, at: int) -> None:
        """Record the end; called by the reaper, before anything else can act on the pid."""
        self.exit_status, self.exited_at = status, at
        self.state = TRANSITIONS.get((self.state, "exit"), STOPPED)
        self.exited.set()

    def on_start(self) -> None:
        """Record that it runs, unless it has ended before that could be recorded."""
        if self.state == CREATED:
            self.state = RUNNING

    async def until_started(self) -> None:
        """Return when no start is under way."""
        while self.starting is not None:
            await self.starting.wait()

    def signal(self, number: int) -> None:
        """Send a signal; raises NotFound when the process has ended."""
        # The pid is ours to use until the reaper has collected it, which sets `exited` first.
        gone = NotFound(f"process {self.name} has finished already: process already finished")
        if self.exited.is_set or not self.pid:
            raise gone
        try:
            os.kill(self.pid, number)
        except ProcessLookupError as error:
            raise gone from error

    async def release(self) -> None:
        """Wait for the output and the exit event of a stopped process, then close its streams."""
        try:
            await self.streams.drain(IO_TIMEOUT)
        except TimeoutError:
            log(f"output of {self.name} is dropped: no reader took it for {IO_TIMEOUT:.0f} s")
        self.streams.close()
        await self.streams.ended()
        await self.reported.wait(REPORT_TIMEOUT)

    def to_record(self, handover: Handover) -> records.ProcessRecord:
        """Return what `take_over` goes on with, at a moment when nothing is under way."""
        return records.ProcessRecord(
            exec_id=self.exec_id,
            pid=self.pid,
            state=self.state,
            exit_status=self.exit_status,
            exited_at=self.exited_at,
            exited=self.exited.is_set,
            reported=self.reported.is_set,
            spec=self.spec,
            streams=self.streams.to_record(handover),
        )

    def take_over(self, handover: Handover, record: records.ProcessRecord) -> None:
        """Be the process of a record."""
        self.pid, self.state, self.spec = record.pid, record.state, record.spec
        self.exit_status, self.exited_at = record.exit_status, record.exited_at
        self.streams.take_over(handover, record.streams)
        if record.exited:
            self.exited.set()
        if record.reported:
            self.reported.set()


def is_first_of_its_namespace(pid: int) -> bool:
    """Whether Linux will kill everything in the pid namespace when ``pid`` ends; False when that is not known."""
    try:
        status = disk.read(f"/proc/{pid}/status")
    except OSError:
        return False
    _, _, rest = status.partition(b"\nNSpid:")
    numbers = rest.partition(b"\n")[0].split()
    return len(numbers) > 1 and numbers[-1] == b"1"
