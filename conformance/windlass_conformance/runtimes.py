"""The promises of a runtime: a shim by its binary, or a daemon's tasks by the runtime's name, one test each.

The cases are those of docs/containerd 3.11, 4.7 and 8.10 that can be seen from outside. They run containers with a
static busybox, as root. The subclass provides a fixture ``runtime``.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pytest

from windlass.contracts.tasks import Status
from windlass.errors import AlreadyExists, Error, InvalidArgument, NotFound
from windlass_conformance.snapshot_files import needs_root

PATIENCE = 20.0


@dataclass(frozen=True)
class State:
    """The state of a process as the runtime reports it."""

    status: Status
    pid: int
    exit_status: int


class Runtime(Protocol):
    """The operations of the cases; an empty ``exec_id`` is the first process. Errors are those of the kernel."""

    def create(self, id: str, argv: Sequence[str], stdout: str = "") -> int:
        """Create a container with busybox, whose first process is ``argv``, and return its pid."""
        ...

    def start(self, id: str, exec_id: str = "") -> int:
        """Start a process and return its pid."""
        ...

    def exec(self, id: str, exec_id: str, argv: Sequence[str]) -> None:
        """Add a process."""
        ...

    def wait(self, id: str, exec_id: str = "") -> int:
        """Wait for a process, at most `PATIENCE` seconds, and return its exit status."""
        ...

    def kill(self, id: str, number: int, exec_id: str = "", all: bool = False) -> None:
        """Send a signal."""
        ...

    def delete(self, id: str, exec_id: str = "") -> int:
        """Delete a process that has ended and return its exit status."""
        ...

    def state(self, id: str, exec_id: str = "") -> State:
        """Describe a process."""
        ...

    def pids(self, id: str) -> list[int]:
        """Return the processes of a container."""
        ...

    def pause(self, id: str) -> None:
        """Freeze a container."""
        ...

    def resume(self, id: str) -> None:
        """Thaw it."""
        ...

    def topics(self, id: str) -> list[str]:
        """Return the topics of the events about a container so far, in order, such as ``/tasks/start``."""
        ...

    def file(self, name: str) -> str:
        """Return the path of a file that a process may write to as ``file://`` URI's path."""
        ...


@needs_root
class RuntimeSuite:
    """The promises of a runtime; the module says how to run the suite."""

    certifies = "runtime"

    @pytest.fixture
    def runtime(self) -> Runtime:
        """Give the runtime under test; the subclass provides it."""
        raise NotImplementedError("the subclass provides the runtime under test")

    def test_a_container_lives_from_create_to_delete(self, runtime: Runtime) -> None:
        """Created, running, stopped, gone, with one pid, an exit status, and events in this order."""
        pid = runtime.create("one", ["sleep", "1000"])
        assert runtime.state("one") == State(Status.CREATED, pid, 0)
        assert runtime.start("one") == pid
        assert runtime.state("one") == State(Status.RUNNING, pid, 0)
        runtime.kill("one", signal.SIGKILL)
        assert runtime.wait("one") == 137
        assert runtime.state("one").status == Status.STOPPED
        assert runtime.delete("one") == 137
        with pytest.raises(NotFound):
            runtime.state("one")
        _eventually_are(runtime, "one", ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"])

    @pytest.mark.parametrize("status", [0, 1, 7, 255])
    def test_exit_statuses_are_kept(self, runtime: Runtime, status: int) -> None:
        """Wait, state and delete return the exit status of the process."""
        runtime.create("one", ["sh", "-c", f"exit {status}"])
        runtime.start("one")
        assert runtime.wait("one") == status
        assert runtime.state("one").exit_status == status
        assert runtime.delete("one") == status

    def test_nothing_runs_before_start(self, runtime: Runtime) -> None:
        """A created container has not executed its process, and can be deleted."""
        path = runtime.file("out")
        runtime.create("one", ["echo", "ran"], f"file://{path}")
        time.sleep(0.2)
        with open(path, "ab") as file:  # noqa: PTH123 - it may not exist yet
            assert file.tell() == 0
        runtime.kill("one", signal.SIGKILL)
        runtime.wait("one")
        runtime.delete("one")

    def test_output_goes_where_it_should(self, runtime: Runtime) -> None:
        """Standard output is appended to the file that is named by URI, to its last byte."""
        path = runtime.file("out")
        runtime.create("one", ["seq", "20000"], f"file://{path}")
        runtime.start("one")
        assert runtime.wait("one") == 0
        runtime.delete("one")
        with open(path) as file:  # noqa: PTH123 - as above
            assert file.read().split() == [str(number) for number in range(1, 20001)]

    def test_a_running_container_is_not_deleted(self, runtime: Runtime) -> None:
        """Delete of a running process is refused, and the process goes on."""
        runtime.create("one", ["sleep", "1000"])
        runtime.start("one")
        with pytest.raises(Error):
            runtime.delete("one")
        assert runtime.state("one").status == Status.RUNNING

    def test_an_id_is_used_once(self, runtime: Runtime) -> None:
        """A second container of the same ID is AlreadyExists, and the first goes on."""
        runtime.create("one", ["sleep", "1000"])
        runtime.start("one")
        with pytest.raises(AlreadyExists):
            runtime.create("one", ["true"])
        assert runtime.state("one").status == Status.RUNNING

    def test_a_program_that_is_missing_is_told(self, runtime: Runtime) -> None:
        """A process that cannot be executed is an error that names it, and nothing stays."""
        with pytest.raises(Error, match="no-such-program"):
            runtime.create("one", ["no-such-program"])
            runtime.start("one")
        _gone(runtime, "one")

    def test_processes_are_added(self, runtime: Runtime) -> None:
        """An exec has a pid, a status and an exit of its own, and the container goes on."""
        runtime.create("one", ["sleep", "1000"])
        runtime.start("one")
        runtime.exec("one", "e1", ["sh", "-c", "exit 5"])
        assert runtime.state("one", "e1").status == Status.CREATED
        pid = runtime.start("one", "e1")
        assert pid > 0
        assert runtime.wait("one", "e1") == 5
        assert runtime.delete("one", "e1") == 5
        with pytest.raises(NotFound):
            runtime.state("one", "e1")
        assert runtime.state("one").status == Status.RUNNING

    def test_an_exec_needs_a_running_container(self, runtime: Runtime) -> None:
        """Nothing is added to a container that has ended."""
        runtime.create("one", ["true"])
        runtime.start("one")
        runtime.wait("one")
        with pytest.raises(Error):
            runtime.exec("one", "e1", ["true"])
            runtime.start("one", "e1")

    def test_an_exec_id_is_used_once(self, runtime: Runtime) -> None:
        """A second exec of the same ID is AlreadyExists."""
        runtime.create("one", ["sleep", "1000"])
        runtime.start("one")
        runtime.exec("one", "e1", ["true"])
        with pytest.raises(AlreadyExists):
            runtime.exec("one", "e1", ["true"])

    def test_what_has_ended_is_not_signalled(self, runtime: Runtime) -> None:
        """Kill of a process that is gone is NotFound."""
        runtime.create("one", ["true"])
        runtime.start("one")
        runtime.wait("one")
        with pytest.raises(NotFound):
            runtime.kill("one", signal.SIGTERM)

    def test_what_is_not_there_is_not_found(self, runtime: Runtime) -> None:
        """Every call about an unknown exec is NotFound."""
        runtime.create("one", ["sleep", "1000"])
        runtime.start("one")
        for call in (runtime.state, runtime.start, runtime.wait, runtime.delete):
            with pytest.raises(NotFound):
                call("one", "none")
        with pytest.raises(NotFound):
            runtime.kill("one", signal.SIGTERM, "none")

    def test_signals_arrive(self, runtime: Runtime) -> None:
        """A process that handles a signal gets it."""
        runtime.create("one", ["sh", "-c", "trap 'exit 3' USR1; while :; do sleep 0.05; done"])
        runtime.start("one")
        time.sleep(0.3)
        runtime.kill("one", signal.SIGUSR1)
        assert runtime.wait("one") == 3

    def test_all_processes_can_be_signalled(self, runtime: Runtime) -> None:
        """Kill with all reaches the execs too."""
        runtime.create("one", ["sleep", "1000"])
        runtime.start("one")
        runtime.exec("one", "e1", ["sleep", "1000"])
        runtime.start("one", "e1")
        runtime.kill("one", signal.SIGKILL, "", True)
        assert runtime.wait("one") == 137
        assert runtime.wait("one", "e1") == 137

    def test_all_of_an_exec_is_the_exec(self, runtime: Runtime) -> None:
        """A kill of an exec with ``all`` ends that alone; one of all that has ended already is fine."""
        runtime.create("one", ["sleep", "1000"])
        runtime.start("one")
        runtime.exec("one", "e1", ["sleep", "1000"])
        runtime.start("one", "e1")
        runtime.kill("one", signal.SIGKILL, "e1", all=True)
        assert runtime.wait("one", "e1") == 137
        assert runtime.state("one").status == Status.RUNNING
        runtime.kill("one", signal.SIGKILL)
        runtime.wait("one")
        runtime.kill("one", signal.SIGKILL, all=True)

    def test_waiting_again_says_the_same(self, runtime: Runtime) -> None:
        """Wait of a process that has ended answers at once, as often as it is asked."""
        runtime.create("one", ["sh", "-c", "exit 9"])
        runtime.start("one")
        assert [runtime.wait("one") for _ in range(3)] == [9, 9, 9]

    def test_processes_are_listed(self, runtime: Runtime) -> None:
        """The pids of a container are those of its first process and its execs."""
        pid = runtime.create("one", ["sleep", "1000"])
        runtime.start("one")
        runtime.exec("one", "e1", ["sleep", "1000"])
        other = runtime.start("one", "e1")
        assert {pid, other} <= set(runtime.pids("one"))

    def test_a_container_is_frozen_and_thawed(self, runtime: Runtime) -> None:
        """Paused is a state of its own; afterwards it runs on, and can be killed."""
        runtime.create("one", ["sleep", "1000"])
        runtime.start("one")
        runtime.pause("one")
        assert runtime.state("one").status == Status.PAUSED
        runtime.resume("one")
        assert runtime.state("one").status == Status.RUNNING

    def test_containers_are_apart(self, runtime: Runtime) -> None:
        """The end of one container does not end another."""
        runtime.create("one", ["sleep", "1000"])
        runtime.create("two", ["true"])
        runtime.start("one")
        runtime.start("two")
        assert runtime.wait("two") == 0
        assert runtime.state("one").status == Status.RUNNING

    def test_many_exits_are_all_told(self, runtime: Runtime) -> None:
        """Of twenty execs that end at once, no exit is lost."""
        runtime.create("one", ["sleep", "1000"])
        runtime.start("one")
        names = [f"e{number}" for number in range(20)]
        for name in names:
            runtime.exec("one", name, ["sh", "-c", f"exit {name[1:]}"])
        for name in names:
            runtime.start("one", name)
        assert [runtime.wait("one", name) for name in names] == list(range(20))


def _eventually_are(runtime: Runtime, id: str, topics: list[str]) -> None:
    end = time.monotonic() + PATIENCE
    while (found := runtime.topics(id)) != topics:
        assert time.monotonic() < end, f"events were {found}"
        time.sleep(0.05)


def _gone(runtime: Runtime, id: str) -> None:
    """Make sure that a container that could not be started is not there, or can be deleted."""
    try:
        runtime.delete(id)
    except (NotFound, InvalidArgument, Error):
        pass
    with pytest.raises(Error):
        runtime.state(id)
