"""`ctr tasks` and `ctr containers`: what can be done to a running container, and what is told about it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import grpc
import pytest
from compat.machines import Machine, eventually
from polling import is_readable

from windlass_api.containerd.services.tasks.v1 import tasks_pb2, tasks_pb2_grpc

IMAGE = "docker.io/library/busy:1"


@pytest.fixture(params=["windlass", "windlass_own", "containerd"])
def machine(request: pytest.FixtureRequest) -> Machine:
    """Each of the two in turn, and Windlass with its own OCI runtime."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Machine)
    return found


def test_a_detached_container_runs_on_and_is_listed(machine: Machine, running: str) -> None:
    """`tasks ls` names its pid, which is a process."""
    _, pid, status = machine.rows("tasks", "ls")[running]
    assert status == "RUNNING"
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"/bin/sleep\x001000\x00"
    assert running in machine.ctr("tasks", "ls", "-q").split()


def test_ps_lists_init_and_execs(machine: Machine, running: str) -> None:
    """With the pids that the host knows them by."""
    machine.ctr("tasks", "exec", "-d", "--exec-id", "more", running, "/bin/sleep", "999")
    rows = machine.rows("tasks", "ps", running)
    assert machine.rows("tasks", "ls")[running][1] in rows
    assert {Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1] for pid in rows} == {b"1000", b"999"}


def test_exec_has_its_own_exit_code_and_streams(machine: Machine, running: str) -> None:
    """And the container runs on."""
    script = "echo out; echo err >&2; cat; exit 3"
    command = ["tasks", "exec", "--cwd", "/tmp", "--exec-id", "one", running, "/bin/sh", "-c", script]
    with machine.background(*command) as process:
        out, error = process.communicate(b"typed", timeout=20)
    assert (process.returncode, out, error) == (3, b"out\ntyped", b"err\n")
    assert machine.status(running) == "RUNNING"


def test_an_exec_is_killed_alone(machine: Machine, running: str) -> None:
    """`tasks kill --exec-id` leaves init alone."""
    with machine.background("tasks", "exec", "--exec-id", "victim", running, "/bin/sleep", "999") as process:
        eventually(lambda: len(machine.rows("tasks", "ps", running)) == 2)
        machine.ctr("tasks", "kill", "-s", "SIGKILL", "--exec-id", "victim", running)
        assert process.wait(20) == 137
    assert machine.status(running) == "RUNNING"


def test_all_of_an_exec_is_the_exec(machine: Machine, running: str) -> None:
    """A kill with both leaves init alone; `ctr` itself does not ask for it."""
    with machine.background("tasks", "exec", "--exec-id", "victim", running, "/bin/sleep", "999") as process:
        eventually(lambda: len(machine.rows("tasks", "ps", running)) == 2)
        with grpc.insecure_channel(f"unix://{machine.address}") as channel:
            request = tasks_pb2.KillRequest(container_id=running, exec_id="victim", signal=9, all=True)
            metadata = (("containerd-namespace", machine.namespace),)
            tasks_pb2_grpc.TasksStub(channel).Kill(request, metadata=metadata, timeout=20)
        assert process.wait(20) == 137
    assert machine.status(running) == "RUNNING"


def test_a_container_ignores_no_signal(machine: Machine, box: str) -> None:
    """What a daemon or shim ignores would stay ignored in every program."""
    status = machine.ctr("run", "--rm", IMAGE, box, "/bin/cat", "/proc/self/status")
    assert "\nSigIgn:\t0000000000000000\n" in status


@pytest.mark.parametrize("stdin", [False, True])
def test_input_is_closed_of_tasks_alone(machine: Machine, running: str, stdin: bool) -> None:
    """NOT_FOUND without a container, a task or an exec, also when there is nothing to close."""
    without = machine.new_id()
    machine.ctr("containers", "create", IMAGE, without, "/bin/true")
    metadata = (("containerd-namespace", machine.namespace),)
    try:
        with grpc.insecure_channel(f"unix://{machine.address}") as channel:
            close = tasks_pb2_grpc.TasksStub(channel).CloseIO
            close(tasks_pb2.CloseIORequest(container_id=running, stdin=stdin), metadata=metadata, timeout=20)
            for id, exec_id in (("nobody", ""), (without, ""), (running, "nobody")):
                request = tasks_pb2.CloseIORequest(container_id=id, exec_id=exec_id, stdin=stdin)
                with pytest.raises(grpc.RpcError) as caught:
                    close(request, metadata=metadata, timeout=20)
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    finally:
        machine.ctr("containers", "rm", without)


def test_an_exec_that_cannot_start_says_why(machine: Machine, running: str) -> None:
    """The message is the OCI runtime's, and its id is free again."""
    done = machine.try_ctr("tasks", "exec", "--exec-id", "bad", running, "/no/such")
    assert done.returncode == 1
    assert "no such file or directory" in done.stderr
    assert machine.ctr("tasks", "exec", "--exec-id", "bad", running, "/bin/echo", "fine") == "fine\n"


def test_a_paused_container_stands_still_until_it_is_resumed(machine: Machine, box: str) -> None:
    """PAUSED, no output meanwhile, RUNNING again."""
    script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
    with machine.background("run", "--rm", IMAGE, box, "/bin/sh", "-c", script) as run:
        assert run.stdout is not None
        assert run.stdout.read(1)
        machine.ctr("tasks", "pause", box)
        assert machine.status(box) == "PAUSED"
        time.sleep(0.2)
        while is_readable(run.stdout.fileno(), 0.2):
            assert os.read(run.stdout.fileno(), 65536)
        machine.ctr("tasks", "resume", box)
        assert machine.status(box) == "RUNNING"
        assert is_readable(run.stdout.fileno(), 10)
        machine.ctr("tasks", "kill", "-s", "SIGKILL", box)
        assert run.wait(20) == 137


def test_metrics_count_memory_and_processes(machine: Machine, running: str) -> None:
    """The message's type is the cgroup's version, its numbers are the cgroup's."""
    metrics = json.loads(machine.ctr("tasks", "metrics", "--format", "json", running))
    assert metrics["pids"]["current"] == 1
    assert metrics["memory"]
    table = machine.ctr("tasks", "metrics", running)
    assert table.startswith("ID")
    assert running in table


def test_attach_shows_output_and_gets_the_exit_code(machine: Machine, box: str) -> None:
    """Of a container that was started detached."""
    machine.ctr("run", "-d", IMAGE, box, "/bin/sh", "-c", "sleep 1; echo late; exit 4")
    done = machine.try_ctr("tasks", "attach", box)
    assert (done.returncode, done.stdout) == (4, "late\n")


def test_a_stopped_task_is_removed_with_its_exit_code(machine: Machine, box: str) -> None:
    """`tasks rm` tells it; then the container is there, and can be started anew."""
    machine.ctr("run", "-d", IMAGE, box, "/bin/sh", "-c", "exit 6")
    eventually(lambda: machine.status(box) == "STOPPED")
    done = machine.try_ctr("tasks", "rm", box)
    assert f"task {box} exit with non-zero exit code 6" in done.stderr
    assert machine.status(box) == ""
    assert box in machine.rows("containers", "ls")

    assert machine.try_ctr("tasks", "start", box).returncode == 6


def test_a_running_task_is_removed_only_by_force(machine: Machine, running: str) -> None:
    """The refusal names the state."""
    done = machine.try_ctr("tasks", "rm", running)
    assert done.returncode == 1
    assert "must be stopped before deletion" in done.stderr
    assert machine.try_ctr("containers", "rm", running).returncode == 1

    machine.try_ctr("tasks", "rm", "-f", running)
    assert machine.status(running) == ""


def test_a_killed_task_stops_and_is_still_listed(machine: Machine, running: str) -> None:
    """Until it is removed, which tells its code."""
    machine.ctr("tasks", "kill", "-s", "SIGKILL", running)
    eventually(lambda: machine.status(running) == "STOPPED")
    done = machine.try_ctr("tasks", "kill", running)
    assert done.returncode == 1
    assert "process already finished" in done.stderr
    assert "non-zero exit code 137" in machine.try_ctr("tasks", "rm", running).stderr


def test_a_container_without_a_task(machine: Machine, box: str) -> None:
    """create, ls, info, label, rm, and a snapshot that comes and goes with it."""
    machine.ctr("containers", "create", "--label", "colour=red", IMAGE, box, "/bin/true")
    assert machine.rows("containers", "ls")[box] == [box, IMAGE, "io.containerd.runc.v2"]
    machine.ctr("containers", "label", box, "size=big", "colour=")

    info = json.loads(machine.ctr("containers", "info", box))
    assert (info["ID"], info["Image"], info["SnapshotKey"]) == (box, IMAGE, box)
    assert info["Runtime"]["Name"] == "io.containerd.runc.v2"
    assert info["Labels"]["size"] == "big"
    assert "colour" not in info["Labels"]
    assert info["Spec"]["process"]["args"] == ["/bin/true"]
    assert box in machine.rows("snapshots", "ls")

    machine.ctr("containers", "rm", box)
    assert box not in machine.rows("containers", "ls")
    assert box not in machine.rows("snapshots", "ls")


def test_what_does_not_exist_is_said_so(machine: Machine) -> None:
    """By name, and with exit code 1."""
    for command in (
        ["tasks", "kill", "nobody"],
        ["tasks", "pause", "nobody"],
        ["tasks", "ps", "nobody"],
        ["tasks", "metrics", "nobody"],
        ["containers", "info", "nobody"],
        ["containers", "rm", "nobody"],
    ):
        done = machine.try_ctr(*command)
        assert done.returncode == 1, command
        assert "nobody" in done.stderr, command
        assert "not found" in done.stderr, command


def test_events_tell_the_life_of_a_container_in_order(machine: Machine, box: str) -> None:
    """While other things go on; from its creation to the removal of its snapshot."""
    with machine.background("events") as events:
        assert events.stdout is not None
        time.sleep(0.5)  # ctr does not say when it has subscribed
        machine.try_ctr("run", "--rm", IMAGE, box, "/bin/sh", "-c", "exit 7")
        text = ""
        while "/containers/delete" not in text or "/tasks/delete" not in text:
            assert is_readable(events.stdout.fileno(), 10), text
            text += os.read(events.stdout.fileno(), 65536).decode()
    lines = [line.split(maxsplit=6) for line in text.splitlines() if box in line]
    assert all(line[4] == machine.namespace for line in lines)
    topics = [line[5] for line in lines if "/snapshot/" not in line[5]]
    assert [topic for topic in topics if topic != "/containers/delete"] == [
        "/containers/create",
        "/tasks/create",
        "/tasks/start",
        "/tasks/exit",
        "/tasks/delete",
    ]
    # Of the daemon; what the shim has to say of the task's deletion may come a moment later.
    assert topics.index("/containers/delete") > topics.index("/tasks/exit")
    exited = next(json.loads(line[6]) for line in lines if line[5] == "/tasks/exit")
    assert (exited["container_id"], exited["id"], exited["exit_status"]) == (box, box, 7)
