"""What a worker leaves is read by the next one, also by one of a later version."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shim_runc.fake_runtime import Parts, parts

from windlass import errors
from windlass_api.ttrpc import framing as ttrpc
from windlass_api.ttrpc.framing import blob, number
from windlass_shim_runc import messages, records
from windlass_shim_runc.inventory import Inventory
from windlass_shim_runc.keeper import Handover
from windlass_shim_runc.messages import Message, decode
from windlass_shim_runc.records import (
    CallRecord,
    ConnectionRecord,
    ContainerRecord,
    CopyRecord,
    MemoryRecord,
    ProcessRecord,
    SandboxRecord,
    ShimRecord,
    StreamsRecord,
)
from windlass_shim_runc.server import Server
from windlass_shim_runc.services import services

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll and splice are Linux's")

FIRST = Path(__file__).parent / "records" / "version-1.hex"
"""The record below as version 1 wrote it. It never changes; a later version gets a file of its own."""

NO_PID = (1 << 22) - 1
"""A process that there is none of."""

QUESTION = ttrpc.encode_request(
    ttrpc.Request("containerd.task.v3.Task", "State", messages.ProcessRequest(id="box", exec_id="").encode(), 0)
)

RECORD = ShimRecord(
    version=1,
    connections=(ConnectionRecord(socket=1, last_stream=5, calls=(CallRecord(stream=5, flags=1, data=QUESTION),)),),
    containers=(
        ContainerRecord(
            id="box",
            bundle="/run/windlass/io.containerd.runtime.v2.task/ns/box",
            options=messages.Options(binary_name="crun", root="/run/crun", systemd_cgroup=True, io_uid=7),
            mounted=True,
            checkpoint="/images/1",
            owns_pids=True,
            forgotten=True,
            may_delete=True,
            memory=MemoryRecord(directory="/sys/fs/cgroup/box", events=2, counts=True, kills=3),
            init=ProcessRecord(
                pid=NO_PID,
                state=2,
                exit_status=137,
                exited_at=1_790_000_000_000_000_001,
                exited=True,
                reported=True,
                streams=StreamsRecord(stdin="/fifo/in", stdout="/fifo/out", stderr="/fifo/err"),
            ),
            execs=(
                ProcessRecord(
                    exec_id="shell",
                    spec=b'{"args":["sh"]}',
                    state=1,
                    streams=StreamsRecord(
                        stdin="/fifo/in",
                        stdout="/fifo/out",
                        terminal=True,
                        outputs=(CopyRecord(source=3, target=4),),
                        input=CopyRecord(source=5, target=6),
                        pending_input=CopyRecord(source=7, target=8),
                        input_holder=9,
                        master=10,
                        width=101,
                        height=37,
                        stdin_closed=True,
                        logger_pid=NO_PID,
                    ),
                ),
            ),
        ),
    ),
    sandbox=SandboxRecord(id="pod", created_at=1_790_000_000_000_000_002, started=True, exited_at=0),
)


@pytest.fixture
def shim() -> Iterator[Parts]:
    """A shim's parts."""
    with parts() as made:
        yield made


def test_records_of_version_1_are_understood() -> None:
    """Every field has the number and the meaning that it had then."""
    found = records.read(bytes.fromhex(FIRST.read_text()))
    assert found == RECORD
    assert repr(found) == repr(records.read(RECORD.encode()))


def test_a_field_that_is_not_known_is_ignored() -> None:
    """One of a later version, at any depth; everything else is read."""
    later = blob(99, b"news")
    container = RECORD.containers[0].encode() + later
    state = number(1, 1) + blob(3, container) + later
    assert records.read(state) == ShimRecord(version=1, containers=RECORD.containers)


def test_a_field_that_is_missing_has_its_zero() -> None:
    """One that was not there when the record was written: zero means what was true then."""
    assert records.read(number(1, 1) + blob(3, ContainerRecord(id="box").encode())).containers[0].checkpoint == ""


def test_a_later_version_is_refused_with_both_numbers() -> None:
    """A worker that would lose a container must not serve it."""
    with pytest.raises(errors.FailedPrecondition, match=rf"version 1000, this worker reads up to {records.VERSION}"):
        records.read(number(1, 1000))


NUMBERS = {
    ShimRecord: "version connections containers sandbox",
    ContainerRecord: "id bundle options mounted checkpoint owns_pids forgotten may_delete memory init execs",
    ProcessRecord: "exec_id pid state exit_status exited_at exited reported spec streams",
    MemoryRecord: "directory events counts kills",
    SandboxRecord: "id created_at started exited_at",
    ConnectionRecord: "socket last_stream calls",
    CallRecord: "stream flags data",
    CopyRecord: "source target",
    StreamsRecord: "stdin stdout stderr terminal outputs input pending_input input_holder master width height "
    "stdin_closed logger_pid",
}
"""The fields of version 1, in the order of their numbers."""


@pytest.mark.parametrize("kind", list(NUMBERS), ids=lambda kind: kind.__name__)
def test_numbers_stay(kind: type[Message]) -> None:
    """A new field comes last; one in between would change the meaning of those after it."""
    names = NUMBERS[kind].split()
    assert [kind._fields[at][0] for at in range(1, len(names) + 1)] == names


def taken_over(shim: Parts, state: bytes, descriptors: list[int], listener: socket.socket) -> Inventory:
    """Take over a state; the connections of it are served when the loop runs."""
    handover = Handover()
    handover.descriptors = descriptors
    record = records.read(state)
    inventory = Inventory(shim.shim, lambda: None)
    inventory.take_over(handover, record)
    server = Server(shim.loop, listener, services(inventory, lambda: None))
    server.take_over(handover, record.connections)
    return inventory


def test_a_shim_of_version_1_is_taken_over(shim: Parts, tmp_path: Path) -> None:
    """Its containers are as they were, its streams flow, and a call that waited is answered on its connection."""
    descriptors, ours = [], {}
    mine, theirs = socket.socketpair()
    descriptors.append(os.dup(theirs.fileno()))
    descriptors.append(os.eventfd(0, os.EFD_NONBLOCK))
    for name in ("output", "input"):
        source, feeding = os.pipe()
        reading, target = os.pipe()
        os.set_blocking(source, False)
        descriptors += [source, target]
        ours[name] = (feeding, reading)
    descriptors += [os.open(os.devnull, os.O_RDWR) for _ in range(4)]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    with mine, theirs, listener:
        inventory = taken_over(shim, bytes.fromhex(FIRST.read_text()), descriptors, listener)
        box = inventory.container("box")
        shell = box.process("shell")
        assert (box.init.pid, box.init.exit_status, box.init.exited.is_set) == (NO_PID, 137, True)
        assert (shell.state, shell.spec, shell.streams.terminal) == (1, b'{"args":["sh"]}', True)
        assert inventory.sandbox is not None and inventory.sandbox.is_ready
        for feeding, _ in ours.values():
            os.write(feeding, b"word")

        async def flow() -> None:
            for _, reading in ours.values():
                await shim.loop.readable(reading, 5)
                assert os.read(reading, 10) == b"word"
            await shim.loop.readable(mine.fileno(), 5)

        shim.run(flow())
        (frame,) = ttrpc.FrameDecoder().feed(mine.recv(65536))
        answer = decode(messages.StateResponse, ttrpc.decode_response(frame.data).payload)
        assert (frame.stream, answer.id, answer.exit_status) == (5, "box", 137)
        shell.streams._logger = None
        shell.streams.close()
        assert box._exits.memory is not None
        os.close(descriptors[1])
    for feeding, reading in ours.values():
        os.close(feeding)
        os.close(reading)


def test_what_is_taken_over_is_left_as_it_came(shim: Parts, tmp_path: Path) -> None:
    """The next worker gets from a worker what that one has got, when nothing has happened in between."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    with listener:
        record = records.read(bytes.fromhex(FIRST.read_text()))
        record.connections = ()
        (box,) = record.containers
        box.memory = MemoryRecord()
        box.execs = (ProcessRecord(exec_id="shell", spec=b"{}", state=1, streams=StreamsRecord(terminal=True)),)
        inventory = taken_over(shim, record.encode(), [], listener)
        again = inventory.to_record(Handover())
        again.version = 1
        assert again == record


def test_many_execs_are_recorded_in_little_time() -> None:
    """Reading is a part of the answer to the first request after a rest."""
    box = ContainerRecord(id="box", execs=[ProcessRecord(exec_id=f"exec-{at}", pid=at) for at in range(1, 1001)])
    state = ShimRecord(version=1, containers=(box,)).encode()
    began = time.process_time()
    assert len(records.read(state).containers[0].execs) == 1000
    assert time.process_time() - began < 2
