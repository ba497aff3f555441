"""A container and its execs with an OCI runtime that is no program: order, events, and what is undone."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from polling import is_readable
from shim_runc.fake_runtime import ForkingRuntime, Parts, parts

from windlass.errors import AlreadyExists, Error, FailedPrecondition, InvalidArgument, NotFound
from windlass_shim_runc import container, messages
from windlass_shim_runc.container import Container
from windlass_shim_runc.process import CREATED, DELETED, PAUSED, RUNNING, STOPPED

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll and splice are Linux's")

Make = Callable[..., Container]


@pytest.fixture
def shim() -> Iterator[Parts]:
    """A shim's parts."""
    with parts() as made:
        yield made


@pytest.fixture
def make(shim: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A maker of containers that are not created yet; their processes are gone afterwards."""
    monkeypatch.setattr(container, "runtime_of", ForkingRuntime)
    (tmp_path / "config.json").write_text("{}")
    made: list[Container] = []

    def make(id: str = "box", **names: str) -> Container:
        streams = names.get("stdin", ""), names.get("stdout", ""), names.get("stderr", ""), False
        found = Container(shim.shim, id, str(tmp_path), streams, messages.Options())
        made.append(found)
        return found

    yield make
    for each in made:
        for process in (each.init, *each.execs.by_id.values()):
            process.streams.close()
            if process.pid and not process.exited.is_set:
                os.kill(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)


def runtime(box: Container) -> ForkingRuntime:
    """Return a container's runtime."""
    assert isinstance(box.runtime, ForkingRuntime)
    return box.runtime


def create(box: Container, **fields: object) -> messages.CreateTaskRequest:
    """Return a request to create a container."""
    return messages.CreateTaskRequest(id=box.id, bundle=box.bundle, **fields)


def exec_request(exec_id: str, spec: bytes = b"0", **fields: object) -> messages.ExecProcessRequest:
    """Return a request to add an exec."""
    return messages.ExecProcessRequest(exec_id=exec_id, spec=messages.AnyMessage(value=spec), **fields)


async def started(box: Container) -> None:
    """Create and start a container."""
    await box.create(create(box))
    await box.start("")


def test_events_come_in_the_order_of_the_life(shim: Parts, make: Make) -> None:
    """Create, start, exit, delete; the runtime forgets at the exit, so that a delete need not ask it."""
    box = make()

    async def live() -> None:
        await started(box)
        assert box.status(box.init) == RUNNING
        await box.kill(box.init, signal.SIGKILL, all=False)
        await box.init.exited.wait(5)
        assert (box.init.state, box.init.exit_status) == (STOPPED, 137)
        await box.delete()

    shim.run(live())
    assert shim.topics == ["create", "start", "exit", "delete"]
    assert runtime(box).calls == ["create", "start", "kill", "forget"]
    assert box.init.state == DELETED


def test_a_runtime_that_cannot_forget_at_once_deletes(shim: Parts, make: Make) -> None:
    """Before the client asks, who then does not wait for it."""
    box = make()
    runtime(box).fails.add("forget")

    async def live() -> None:
        await started(box)
        await box.kill(box.init, signal.SIGKILL, all=False)
        await box.init.reported.wait(5)
        await box.delete()

    shim.run(live())
    assert runtime(box).calls[-2:] == ["forget", "delete"]


def test_poststop_hooks_run_at_the_delete(shim: Parts, make: Make) -> None:
    """And not at the exit: their moment is the client's to choose."""
    box = make()
    Path(box.bundle, "config.json").write_text('{"hooks": {"poststop": [{"path": "/bin/true"}]}}')

    async def live() -> None:
        await started(box)
        await box.kill(box.init, signal.SIGKILL, all=False)
        await box.init.reported.wait(5)
        assert "delete" not in runtime(box).calls
        await box.delete()

    shim.run(live())
    assert runtime(box).calls[-1] == "delete" and "forget" not in runtime(box).calls


def test_a_delete_that_fails_at_the_exit_is_tried_again(
    shim: Parts, make: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    """The failure is in the log; the client gets the second one."""
    box = make()
    runtime(box).fails |= {"forget", "delete"}

    async def live() -> None:
        await started(box)
        await box.kill(box.init, signal.SIGKILL, all=False)
        await box.init.reported.wait(5)
        with pytest.raises(Error, match="delete failed"):
            await box.delete()
        runtime(box).fails.clear()
        await box.delete()

    shim.run(live())
    assert shim.topics[-1] == "delete"


def test_a_create_that_fails_leaves_no_event_and_is_abandoned(shim: Parts, make: Make) -> None:
    """Unless the name is taken: what has it is another's."""
    box = make()
    runtime(box).fails.add("create")
    with pytest.raises(Error, match="create failed"):
        shim.run(box.create(create(box)))
    assert runtime(box).calls == ["create", "abandon"]
    assert shim.topics == []


def test_what_has_the_name_already_is_left_alone(shim: Parts, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    box = make()

    async def refuse(*_: object) -> int:
        raise Error("OCI runtime create failed: container with given ID already exists")

    monkeypatch.setattr(box.runtime, "create", refuse)
    with pytest.raises(Error, match="already exists"):
        shim.run(box.create(create(box)))
    assert runtime(box).calls == []


def test_a_container_that_never_ran_is_deleted_with_status_0(shim: Parts, make: Make) -> None:
    """As in containerd, although it is killed for that."""
    box = make()

    async def live() -> None:
        await box.create(create(box))
        await box.delete()

    shim.run(live())
    assert (box.init.exit_status, box.init.state) == (0, DELETED)
    assert shim.topics == ["create", "exit", "delete"]


def test_execs_end_before_their_container_does(shim: Parts, make: Make) -> None:
    """The exit of init is the last one, whatever the order of their ends."""
    box = make()

    async def live() -> None:
        await started(box)
        box.execs.add(exec_request("one", b"waits"))
        await box.start("one")
        await box.kill(box.init, signal.SIGKILL, all=False)
        await box.init.reported.wait(5)

    shim.run(live())
    assert shim.topics == ["create", "start", "exec-added", "exec-started", "exit", "exit"]
    assert [b"one" in event for topic, event in shim.publisher._queue if topic == "/tasks/exit"] == [True, False]


def test_an_exec_has_its_own_status_and_output(shim: Parts, make: Make, tmp_path: Path) -> None:
    """What it writes is in the file that the client has named before it can be deleted."""
    box, out = make(), tmp_path / "out"

    async def live() -> None:
        await started(box)
        box.execs.add(exec_request("one", b"7", stdout=f"file://{out}"))
        await box.start("one")
        process = box.process("one")
        await process.exited.wait(5)
        await box.execs.delete(process)
        assert process.exit_status == 7
        with pytest.raises(NotFound, match="exec one of container box does not exist"):
            box.process("one")

    shim.run(live())
    assert out.read_bytes() == b"said"


def test_an_exec_that_cannot_be_made_can_be_started_again(shim: Parts, make: Make) -> None:
    """Nothing of the first attempt is open or running."""
    box = make()

    async def live() -> None:
        await started(box)
        before = len(os.listdir("/proc/self/fd"))
        box.execs.add(exec_request("one"))
        runtime(box).fails.add("exec")
        with pytest.raises(Error, match="exec failed"):
            await box.start("one")
        assert len(os.listdir("/proc/self/fd")) == before
        assert box.process("one").state == CREATED
        runtime(box).fails.clear()
        await box.start("one")
        await box.process("one").exited.wait(5)

    shim.run(live())


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (exec_request("bad/name"), InvalidArgument, "not a valid identifier"),
        (exec_request("two", b""), InvalidArgument, "exec two has no process spec"),
        (exec_request("two", b"[]", terminal=True), InvalidArgument, "not a JSON object"),
        (exec_request("taken"), AlreadyExists, "exec taken of container box exists already"),
    ],
)
def test_an_exec_is_refused_before_anything_is_made(
    shim: Parts, make: Make, request_: messages.ExecProcessRequest, error: type[Error], words: str
) -> None:
    box = make()

    async def live() -> None:
        await started(box)
        box.execs.add(exec_request("taken"))
        with pytest.raises(error, match=words):
            box.execs.add(request_)
        assert list(box.execs.by_id) == ["taken"]

    shim.run(live())


def test_nothing_is_started_in_a_container_that_has_stopped(shim: Parts, make: Make) -> None:
    box = make()

    async def live() -> None:
        await started(box)
        box.execs.add(exec_request("late"))
        await box.kill(box.init, signal.SIGKILL, all=False)
        await box.init.exited.wait(5)
        with pytest.raises(FailedPrecondition, match="cannot start exec late: container box has stopped"):
            await box.start("late")

    shim.run(live())


def test_two_starts_at_once_start_once(shim: Parts, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first, and finds that the container runs."""
    box, seen = make(), list[str]()

    async def slow(*_: object) -> None:
        await shim.loop.sleep(0.05)

    async def second() -> None:
        try:
            await box.start("")
        except Error as error:
            seen.append(str(error))

    async def live() -> None:
        await box.create(create(box))
        monkeypatch.setattr(box.runtime, "start", slow)
        task = shim.loop.spawn(second())
        await box.start("")
        await task.finished.wait(5)

    shim.run(live())
    assert seen == ["cannot start a running container: box"]


def test_a_paused_container_shows_its_execs_as_paused(shim: Parts, make: Make) -> None:
    box = make()

    async def live() -> None:
        await started(box)
        box.execs.add(exec_request("one", b"waits"))
        await box.start("one")
        await box.pause()
        assert [box.status(each) for each in (box.init, box.process("one"))] == [PAUSED, PAUSED]
        with pytest.raises(Error, match="cannot pause a paused container: box"):
            await box.pause()
        await box.resume()
        assert [box.status(each) for each in (box.init, box.process("one"))] == [RUNNING, RUNNING]

    shim.run(live())
    assert shim.topics[-2:] == ["paused", "resumed"]


def test_a_paused_container_is_killed_by_its_runtime(shim: Parts, make: Make) -> None:
    """Only that thaws it; and one process of it is signalled without."""
    box = make()

    async def live() -> None:
        await started(box)
        await box.kill(box.init, 0, all=False)
        assert "kill" not in runtime(box).calls
        await box.pause()
        await box.kill(box.init, 0, all=False)
        assert runtime(box).calls[-1] == "kill"

    shim.run(live())


def test_signals_that_cannot_be_sent_are_refused(shim: Parts, make: Make) -> None:
    """By number, by state, and by who is there."""
    box = make()

    async def live() -> None:
        await started(box)
        box.execs.add(exec_request("one"))
        for number in (-1, 65):
            with pytest.raises(InvalidArgument, match=f"signal {number} does not exist"):
                await box.kill(box.init, number, all=False)
        with pytest.raises(FailedPrecondition, match="exec one of container box has not been started"):
            await box.kill(box.process("one"), 9, all=False)
        await box.kill(box.init, 9, all=False)
        await box.init.exited.wait(5)
        with pytest.raises(NotFound, match="process box has finished already"):
            await box.kill(box.init, 9, all=False)
        await box.kill(box.init, 9, all=True)

    shim.run(live())


def test_update_and_checkpoint_are_the_runtimes(shim: Parts, make: Make) -> None:
    """Each in the states that the table has, with an event where containerd has one."""
    box = make()

    async def live() -> None:
        await box.create(create(box))
        await box.update(b"{}")
        with pytest.raises(Error, match="cannot checkpoint a created container: box"):
            await box.checkpoint(messages.CheckpointTaskRequest(path="/x"))
        await box.start("")
        await box.checkpoint(messages.CheckpointTaskRequest(path="/x"))

    shim.run(live())
    assert runtime(box).calls == ["create", "update {}", "start", "checkpoint"]
    assert shim.topics[-1] == "checkpointed"


def test_a_checkpoint_is_restored_at_the_start(shim: Parts, make: Make) -> None:
    """Until then there is no process, and a delete has nothing to kill."""
    box = make()

    async def live() -> None:
        await box.create(create(box, checkpoint="/x"))
        assert (runtime(box).calls, box.init.pid) == ([], 0)
        await box.start("")
        assert box.init.pid

    shim.run(live())
    assert runtime(box).calls == ["restore"]


def test_a_container_that_was_not_restored_is_deleted_and_its_waiters_answered(shim: Parts, make: Make) -> None:
    box = make()

    async def live() -> None:
        await box.create(create(box, checkpoint="/x"))
        runtime(box).fails.add("restore")
        with pytest.raises(Error, match="restore failed"):
            await box.start("")
        await box.delete()
        await box.init.exited.wait(0)

    shim.run(live())
    assert runtime(box).calls == ["restore", "abandon"]
    assert shim.topics == ["create", "delete"]


def test_without_a_memory_watch_the_container_runs(shim: Parts, make: Make) -> None:
    """The log says that its out-of-memory events will be missed."""
    box = make()
    runtime(box).fails.add("watch_memory")
    reading, writing = os.pipe()
    saved = os.dup(2)
    os.dup2(writing, 2)
    try:
        shim.run(started(box))

        async def turn() -> None:
            await shim.loop.sleep(0.01)

        shim.run(turn())
    finally:
        os.dup2(saved, 2)
    assert is_readable(reading, 1)
    assert b"cannot tell when container box is out of memory" in os.read(reading, 4096)
    for fd in (reading, writing, saved):
        os.close(fd)
