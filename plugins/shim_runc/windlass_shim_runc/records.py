"""What a worker leaves for the next one, as messages of `windlass_shim_runc.messages`.

A shim's records are read by workers of the version that wrote them, or of a later one. So, as in any protobuf:

- A field's number and meaning never change. A new field gets the next number at the end of its class, and its zero
  means what was true before it existed.
- A field that is not known is ignored: what it says is lost to the worker that reads it, and to the next ones.
- `VERSION` is raised when ignoring a new field would lose a container or what it writes. A worker that reads a later
  version than its own refuses it.

A descriptor is the number that `Handover.put` has given to it; 0 is none.
"""

from __future__ import annotations

from windlass.errors import FailedPrecondition
from windlass_shim_runc.messages import Message, Options, decode

VERSION = 1


class CopyRecord(Message):
    """Two descriptors, the second of which gets what the first gives."""

    source = 0
    target = 0


class StreamsRecord(Message):
    """`windlass_shim_runc.streams.Streams`."""

    stdin = ""
    stdout = ""
    stderr = ""
    terminal = False
    outputs: tuple[CopyRecord, ...] = (CopyRecord(),)
    input = CopyRecord()
    """The copy of standard input, once it has begun."""
    pending_input = CopyRecord()
    """The same before it begins: the source is the FIFO, not opened for reading."""
    input_holder = 0
    """The writing end of the FIFO of standard input that keeps it from ending."""
    master = 0
    """The terminal."""
    width = 0
    height = 0
    """The size that the client wants for the terminal."""
    stdin_closed = False
    logger_pid = 0


class ProcessRecord(Message):
    """`windlass_shim_runc.process.Process`."""

    exec_id = ""
    pid = 0
    state = 0
    exit_status = 0
    exited_at = 0
    exited = False
    reported = False
    spec = b""
    streams = StreamsRecord()


class MemoryRecord(Message):
    """`windlass_shim_runc.oom.MemoryWatch`."""

    directory = ""
    events = 0
    """The descriptor that can be read when processes may have been killed."""
    counts = False
    """Whether the cgroup counts kills; version 1 does not."""
    kills = 0


class ContainerRecord(Message):
    """`windlass_shim_runc.container.Container`."""

    id = ""
    bundle = ""
    options = Options()
    mounted = False
    """Whether there is something to unmount at the rootfs."""
    checkpoint = ""
    """What `Start` restores, empty when the OCI runtime has the container."""
    owns_pids = False
    """Whether Linux kills the execs when init ends."""
    forgotten = False
    """Whether the OCI runtime keeps nothing of the container any more."""
    may_delete = False
    """Whether the OCI runtime has been asked, or will not be asked, to forget it before `Delete`."""
    memory = MemoryRecord()
    init = ProcessRecord()
    execs: tuple[ProcessRecord, ...] = (ProcessRecord(),)


class SandboxRecord(Message):
    """`windlass_shim_runc.sandbox.Sandbox`."""

    id = ""
    created_at = 0
    started = False
    exited_at = 0


class CallRecord(Message):
    """A request that has no answer yet, as it came."""

    stream = 0
    flags = 0
    data = b""


class ConnectionRecord(Message):
    """`windlass_shim_runc.server.Connection`."""

    socket = 0
    last_stream = 0
    calls: tuple[CallRecord, ...] = (CallRecord(),)


class ShimRecord(Message):
    """All that a worker leaves."""

    version = 0
    connections: tuple[ConnectionRecord, ...] = (ConnectionRecord(),)
    containers: tuple[ContainerRecord, ...] = (ContainerRecord(),)
    sandbox = SandboxRecord()


def read(state: bytes) -> ShimRecord:
    """Return the record that a worker has written; raises FailedPrecondition for one of a later version."""
    record = decode(ShimRecord, state)
    if record.version > VERSION:
        raise FailedPrecondition(
            f"the shim's state is of version {record.version}, this worker reads up to {VERSION}; "
            "install the newer windlass-shim-runc again"
        )
    return record
