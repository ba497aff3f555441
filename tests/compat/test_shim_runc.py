"""The shim with a real runc: lives of containers, streams, terminals, signals, errors."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from compat.machines import eventually
from shim_runc.harness import ALWAYS_RESTING, ENTRY, OWN_ENTRY, Client, Shim, shims, spec

from windlass import errors
from windlass_conformance.boxes import BUSYBOX
from windlass_shim_runc import messages
from windlass_shim_runc.messages import Message

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="containers need root on Linux"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed: apt install runc"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="a static busybox is missing: apt install busybox-static"),
]

Make = Callable[..., Shim]


@pytest.fixture(params=[ENTRY, ALWAYS_RESTING, OWN_ENTRY], ids=["serving", "resting", "own"])
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Make]:
    """A maker of shims, whose containers are gone afterwards."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    with shims(tmp_path, request.param) as maker:
        yield maker
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def collect(path: str, into: list[bytes]) -> threading.Thread:
    """Read a FIFO to its end in a thread."""

    def read() -> None:
        with open(path, "rb") as file:
            into.append(file.read())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def test_a_container_lives_and_dies_and_its_events_come_in_order(make: Make) -> None:
    """create, start, wait, delete: states, exit code, events, and nothing left behind."""
    shim = make()
    pid = shim.create(["/bin/sh", "-c", "exit 7"])
    assert shim.status().status == 1

    assert shim.start() == pid
    assert shim.wait() == 7
    assert shim.status().status == 3
    deleted = shim.delete()

    assert (deleted.pid, deleted.exit_status) == (pid, 7)
    shim.sink.wait_for("/tasks/delete")
    assert shim.sink.topics == ["create", "start", "exit", "delete"]
    assert not list((shim.state / "runc" / "test").iterdir())
    with pytest.raises(errors.NotFound):
        shim.status()
    assert shim.shutdown()


def test_the_rootfs_mounts_of_create_are_gone_after_delete(make: Make) -> None:
    """The mounts that come with the request are made at the bundle's rootfs and removed."""
    shim, files = make("donor"), make()
    shim.make_bundle(["/bin/true"])
    files.make_bundle(["/bin/sh", "-c", "exit 3"])
    shutil.rmtree(files.bundle / "rootfs")
    (files.bundle / "rootfs").mkdir()
    mount = messages.Mount(type="bind", source=str(shim.bundle / "rootfs"), options=("rbind", "rw"))
    request = messages.CreateTaskRequest(id=files.id, bundle=str(files.bundle), rootfs=(mount,))

    files.call(messages.PidResponse, "Create", request)
    files.start()
    assert files.wait() == 3
    files.delete()

    assert not list((files.bundle / "rootfs").iterdir())


def test_output_and_errors_arrive_apart_and_whole(make: Make) -> None:
    """10 MB on stdout and a line on stderr reach their FIFOs byte for byte."""
    shim = make()
    out, err = shim.fifo("out"), shim.fifo("err")
    got_out: list[bytes] = []
    got_err: list[bytes] = []
    threads = [collect(out, got_out), collect(err, got_err)]

    shim.create(["/bin/sh", "-c", "yes 0123456789abcde | head -c 10485760; echo oops >&2"], stdout=out, stderr=err)
    shim.start()
    assert shim.wait() == 0
    shim.delete()
    for thread in threads:
        thread.join(10)

    expected = b"0123456789abcde\n" * (10485760 // 16)
    assert hashlib.sha256(got_out[0]).digest() == hashlib.sha256(expected).digest()
    assert got_err == [b"oops\n"]


def test_stdin_ends_with_close_io_also_when_it_comes_before_start(make: Make) -> None:
    """What is written by one who waited since before CloseIO is read, then the process sees the end."""
    shim = make()
    stdin, out = shim.fifo("in"), shim.fifo("out")
    got: list[bytes] = []
    reader = collect(out, got)
    shim.create(["/bin/cat"], stdin=stdin, stdout=out)
    writer = threading.Thread(target=lambda: Path(stdin).write_bytes(b"hello"), daemon=True)
    writer.start()
    time.sleep(0.1)

    shim.call(Message, "CloseIO", messages.CloseIORequest(id=shim.id, stdin=True))
    shim.start()

    assert shim.wait() == 0
    shim.delete()
    for thread in (reader, writer):
        thread.join(5)
    assert got == [b"hello"]


def test_stdin_has_no_reader_before_start(make: Make) -> None:
    """So a client cannot be through with its input, and call CloseIO or forget to, before it has its task."""
    shim = make()
    stdin = shim.fifo("in")
    shim.create(["/bin/cat"], stdin=stdin)
    with pytest.raises(OSError, match="No such device"):
        os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)

    shim.start()
    os.close(os.open(stdin, os.O_WRONLY | os.O_NONBLOCK))
    shim.call(Message, "CloseIO", messages.CloseIORequest(id=shim.id, stdin=True))
    assert shim.wait() == 0


def test_a_vanished_reader_neither_kills_nor_stops_the_container(make: Make) -> None:
    """A second reader gets what comes after the first has left."""
    shim = make()
    stdin, out = shim.fifo("in"), shim.fifo("out")
    first = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    shim.create(["/bin/cat"], stdin=stdin, stdout=out)
    shim.start()
    with open(stdin, "wb") as file:
        file.write(b"one")
        file.flush()
        time.sleep(0.1)
        assert os.read(first, 10) == b"one"
        os.close(first)
        file.write(b"two")
        file.flush()
        time.sleep(0.1)
    second = os.open(out, os.O_RDONLY)

    assert os.read(second, 10) == b"two"
    assert shim.status().status == 2
    shim.kill(9)
    assert shim.wait() == 137
    shim.delete()
    os.close(second)


def test_a_container_whose_output_nobody_reads_can_be_killed_and_deleted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back-pressure holds the process, not the shim; delete gives up on the output after its limit."""
    shim = make()
    out = shim.fifo("out")
    shim.create(["/bin/yes"], stdout=out)
    shim.start()
    time.sleep(0.2)
    shim.kill(9)
    assert shim.wait() == 137

    started = time.monotonic()
    shim.delete()

    assert 5 < time.monotonic() - started < 15


def test_a_terminal_is_one_with_the_size_that_was_asked_for(make: Make) -> None:
    """Resize before and after start; output arrives on stdout, input is typed."""
    shim = make()
    stdin, out = shim.fifo("in"), shim.fifo("out")
    got: list[bytes] = []
    reader = collect(out, got)
    shim.create(["/bin/sh"], terminal=True, stdin=stdin, stdout=out)
    shim.call(Message, "ResizePty", messages.ResizePtyRequest(id=shim.id, width=101, height=37))
    shim.start()
    with open(stdin, "wb") as file:
        file.write(b"tty; stty size; exit 5\n")
        file.flush()
        assert shim.wait() == 5
    shim.delete()
    reader.join(5)

    assert b"37 101" in got[0]
    assert b"/dev/" in got[0]


def test_a_terminal_that_nobody_looks_at_does_not_stop_the_container(make: Make) -> None:
    """However much it says."""
    shim = make()
    shim.create(["/bin/sh", "-c", "head -c 300000 /dev/zero; exit 5"], terminal=True)
    shim.start()
    assert shim.wait() == 5
    shim.delete()


def test_an_exec_that_could_not_start_may_be_started_again(make: Make) -> None:
    """With its streams, once what it needs is there."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    # Any: fields of the request
    names: dict[str, Any] = {name: shim.fifo(name) for name in ("stdin", "stdout", "stderr")}
    shim.exec("late", ["/bin/late"], **names)
    with pytest.raises(errors.Error, match="no such file"):
        shim.start("late")
    (shim.bundle / "rootfs/bin/late").write_text("#!/bin/sh\ncat; echo heard >&2; exit 3\n")
    (shim.bundle / "rootfs/bin/late").chmod(0o755)
    out: list[bytes] = []
    err: list[bytes] = []
    readers = [collect(names["stdout"], out), collect(names["stderr"], err)]
    shim.start("late")
    with open(names["stdin"], "wb") as file:
        file.write(b"typed")
    shim.call(Message, "CloseIO", messages.CloseIORequest(id=shim.id, exec_id="late", stdin=True))
    assert shim.wait("late") == 3
    shim.delete("late")
    for reader in readers:
        reader.join(5)
    assert (out, err) == ([b"typed"], [b"heard\n"])


def test_an_exec_runs_beside_init(make: Make) -> None:
    """exec, its exit code, output and events; its id is free again after delete."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    for _ in range(2):
        out = shim.fifo("exec-out")
        got: list[bytes] = []
        reader = collect(out, got)
        shim.exec("e1", ["/bin/sh", "-c", "echo hi; exit 3"], stdout=out)
        with pytest.raises(errors.FailedPrecondition):
            shim.kill(9, "e1")
        with pytest.raises(errors.AlreadyExists):
            shim.exec("e1", ["/bin/true"])
        assert shim.start("e1") > 0
        assert shim.wait("e1") == 3
        assert shim.delete("e1").exit_status == 3
        reader.join(5)
        assert got == [b"hi\n"]
        os.unlink(out)
    shim.kill(9)
    shim.wait()
    shim.delete()

    shim.sink.wait_for("/tasks/delete")
    one = ["exec-added", "exec-started", "exit"]
    assert shim.sink.topics == ["create", "start", *one, *one, "exit", "delete"]
    assert not list(shim.bundle.glob("exec-*"))


def test_an_exec_with_a_terminal(make: Make) -> None:
    """Its own terminal, while init has none."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    out = shim.fifo("out")
    got: list[bytes] = []
    reader = collect(out, got)
    shim.exec("e", ["/bin/tty"], terminal=True, stdout=out)
    shim.start("e")
    assert shim.wait("e") == 0
    shim.delete("e")
    reader.join(5)
    assert b"/dev/pts/" in got[0] or b"/dev/console" in got[0]


def test_the_exit_of_init_comes_after_those_of_its_execs(make: Make) -> None:
    """Killing init ends a running exec, and their events come in that order."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    shim.exec("e", ["/bin/sleep", "1000"])
    shim.start("e")

    shim.kill(9)
    assert shim.wait() == 137
    shim.sink.wait_for("/tasks/exit", 2)

    import windlass_shim_runc.messages as m

    exits = [m.decode(m.TaskExit, data).id for topic, data in shim.sink.received if topic == "/tasks/exit"]
    assert exits == ["e", "one"]
    with pytest.raises(errors.Error, match="cannot exec a stopped container"):
        shim.exec("late", ["/bin/true"])
    shim.delete("e")
    shim.delete()


def test_without_a_pid_namespace_init_takes_everything_with_it(make: Make) -> None:
    """Nothing of the container is left running when its first process has ended."""
    shim = make()
    shim.make_bundle(["/bin/sh", "-c", "sleep 1000 & echo $! > /survivor; exit 0"])
    text = (shim.bundle / "config.json").read_text().replace('{"type": "pid"}, ', "")
    (shim.bundle / "config.json").write_text(text)
    request = messages.CreateTaskRequest(id=shim.id, bundle=str(shim.bundle))
    shim.call(messages.PidResponse, "Create", request)
    shim.start()
    shim.wait()
    shim.sink.wait_for("/tasks/exit")
    # Without a pid namespace the number is the host's, and somebody else's later: it is ours while it does what it did.
    survivor = Path("/proc", (shim.bundle / "rootfs/survivor").read_text().strip(), "cmdline")

    def survives() -> bool:
        try:
            return survivor.read_bytes() == b"sleep\x001000\x00"
        except (FileNotFoundError, ProcessLookupError):
            return False

    eventually(lambda: not survives())
    shim.delete()


def test_signals_are_delivered_and_refused(make: Make) -> None:
    """By pid, to all, to a created one; a dead one is NotFound, an unknown signal InvalidArgument; 0 only asks."""
    shim = make()
    shim.create(["/bin/sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done"])
    shim.start()
    time.sleep(0.2)
    with pytest.raises(errors.InvalidArgument, match="signal 99"):
        shim.kill(99)
    shim.kill(0)
    shim.kill(signal.SIGTERM)
    assert shim.wait() == 9
    with pytest.raises(errors.NotFound, match="process already finished"):
        shim.kill(9)
    shim.delete()

    created = make("two")
    created.create(["/bin/true"])
    created.kill(9, all=True)
    assert created.wait() == 137
    created.delete()
    created.sink.wait_for("/tasks/delete", 2)
    assert created.sink.topics[-3:] == ["create", "exit", "delete"]


def test_killing_all_of_an_exec_is_killing_the_exec(make: Make) -> None:
    """The container and its other execs run on; only without an exec ID does it concern them all."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    for name in ("e", "other"):
        shim.exec(name, ["/bin/sleep", "1000"])
        shim.start(name)

    shim.kill(9, "e", all=True)

    assert shim.wait("e") == 137
    assert (shim.status().status, shim.status("other").status) == (2, 2)
    with pytest.raises(errors.NotFound, match="process already finished"):
        shim.kill(9, "e", all=True)
    shim.kill(9, all=True)
    assert (shim.wait(), shim.wait("other")) == (137, 137)


def test_killing_all_that_has_ended_already_is_fine(make: Make) -> None:
    """Right after the end of init, and when the runtime has forgotten the container; init alone is not found."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    shim.kill(9)
    shim.wait()

    shim.kill(15, all=True)
    deadline = time.monotonic() + 10
    while (shim.state / "runc" / "test" / shim.id).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    shim.kill(9, all=True)
    with pytest.raises(errors.NotFound):
        shim.kill(9)
    shim.delete()


@pytest.mark.parametrize("wanted", [True, False])
def test_an_exec_has_a_terminal_if_its_request_says_so(make: Make, wanted: bool) -> None:
    """Whatever its process spec says, in whatever case; as in containerd, which `kubectl exec` relies on."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    for name, said in (("a", {"terminal": not wanted}), ("b", {"Terminal": not wanted}), ("c", {})):
        out = shim.fifo(f"out-{name}")
        got: list[bytes] = []
        reader = collect(out, got)
        process = spec(["/bin/sh", "-c", "test -t 1; echo $?"])["process"]
        del process["terminal"]
        value = messages.AnyMessage(type_url="x/Process", value=json.dumps({**process, **said}).encode())
        request = messages.ExecProcessRequest(id=shim.id, exec_id=name, terminal=wanted, stdout=out, spec=value)
        shim.call(Message, "Exec", request)
        shim.start(name)
        assert shim.wait(name) == 0
        assert bool(shim.status(name).terminal) == wanted
        shim.delete(name)
        reader.join(5)
        assert got == [b"0\r\n" if wanted else b"1\n"]


def slow_runtime(directory: Path, verb: str) -> messages.AnyMessage:
    """Return the options for a runc that takes its time for one verb."""
    program = directory / "slow" / "runc"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nfor word; do [ "$word" = {verb} ] && sleep 1 && break; done\nexec runc "$@"\n')
    program.chmod(0o755)
    return messages.pack(messages.Options(binary_name=str(program)))


def test_an_exec_that_is_deleted_before_its_start_has_its_turn_does_not_run(make: Make, tmp_path: Path) -> None:
    """The start waits for a pause that is under way; what is deleted meanwhile is not found, and not started."""
    shim = make()
    shim.create(["/bin/sleep", "1000"], options=slow_runtime(tmp_path, "pause"))
    shim.start()
    shim.exec("e", ["/bin/sleep", "1000"])
    pausing = shim.client.send("Pause", messages.TaskRequest(id=shim.id))
    others = [Client(str(shim.socket_path)) for _ in range(2)]
    request = messages.ProcessRequest(id=shim.id, exec_id="e")
    time.sleep(0.3)
    starting = others[0].send("Start", request)
    time.sleep(0.1)
    deleting = others[1].send("Delete", request)

    assert others[1].receive(deleting).code == 0
    assert others[0].receive(starting).code == errors.NotFound.code
    assert shim.client.receive(pausing).code == 0
    shim.call(Message, "Resume", messages.TaskRequest(id=shim.id))
    found = shim.call(messages.PidsResponse, "Pids", messages.TaskRequest(id=shim.id)).processes
    assert [each.pid for each in found] == [shim.status().pid]
    for other in others:
        other.close()


def test_deleting_an_exec_that_is_being_started_waits_for_the_start(make: Make, tmp_path: Path) -> None:
    """Then it runs, and is not deleted."""
    shim = make()
    shim.create(["/bin/sleep", "1000"], options=slow_runtime(tmp_path, "exec"))
    shim.start()
    shim.exec("e", ["/bin/sleep", "1000"])
    request = messages.ProcessRequest(id=shim.id, exec_id="e")
    starting = shim.client.send("Start", request)
    other = Client(str(shim.socket_path))
    time.sleep(0.2)
    deleting = other.send("Delete", request)

    assert shim.client.receive(starting).code == 0
    assert "cannot delete a running process: e" in other.receive(deleting).message
    assert shim.status("e").status == 2
    other.close()


@pytest.mark.parametrize("program", ["runc", ""], ids=["by runc's own hand", "by the shim's"])
def test_nothing_of_a_container_is_left_in_runc_or_cgroups(make: Make, program: str, tmp_path: Path) -> None:
    """Whether runc is executed to forget it or not; with cgroups below its own, as an init system makes them."""
    if program:
        other = tmp_path / "bin" / program
        other.parent.mkdir()
        other.symlink_to(shutil.which(program) or "")
        program = str(other)
    for inner in (False, True):
        shim = make(f"inner-{inner}")
        pid = shim.create(["/bin/sleep", "1000"], options=messages.pack(messages.Options(binary_name=program)))
        shim.start()
        places = cgroups_of(pid)
        assert places and all(place.is_dir() for place in places)
        if inner:
            (places[0] / "below").mkdir()
        assert (shim.state / "runc" / "test" / shim.id / "state.json").exists()

        shim.kill(9)
        shim.wait()
        shim.delete()

        assert not [place for place in places if place.exists()]
        assert not (shim.state / "runc" / "test" / shim.id).exists()


def cgroups_of(pid: int) -> list[Path]:
    """Return the directories of a process's cgroups that are its container's own."""
    found = []
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        top = names.partition(",")[0].removeprefix("name=") or "unified"
        place = Path("/sys/fs/cgroup") / (top if (Path("/sys/fs/cgroup") / top).is_dir() else ".") / path.lstrip("/")
        if path != "/" and place.is_dir():
            found.append(place)
    return found


def test_a_created_container_can_be_deleted(make: Make) -> None:
    """Its init is killed, as the exit event says; what never ran has exit code 0, as in containerd."""
    shim = make()
    shim.create(["/bin/true"])
    assert shim.delete().exit_status == 0
    shim.sink.wait_for("/tasks/delete")
    assert shim.sink.topics == ["create", "exit", "delete"]
    (_, exit), (_, delete) = shim.sink.received[1:]
    assert messages.decode(messages.TaskExit, exit).exit_status == 137
    assert messages.decode(messages.TaskDelete, delete).exit_status == 0


def test_a_second_delete_while_one_is_under_way_finds_nothing(make: Make) -> None:
    """Not "cannot delete a deleted container": whoever retries knows that it is done."""
    shim = make()
    shim.create(["/bin/true"])
    request = messages.ProcessRequest(id=shim.id)
    other = Client(str(shim.socket_path))
    first, second = shim.client.send("Delete", request), other.send("Delete", request)
    codes = {shim.client.receive(first).code, other.receive(second).code}
    other.close()
    assert codes == {0, errors.NotFound.code}


def test_pause_resume_update_pids_and_stats(make: Make) -> None:
    """What is asked of the cgroup: states, events, and figures in the wire's message."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    pid = shim.start()
    task = messages.TaskRequest(id=shim.id)
    shim.exec("e", ["/bin/sleep", "1000"])
    exec_pid = shim.start("e")

    shim.call(Message, "Pause", task)
    assert shim.status().status == shim.status("e").status == 4
    with pytest.raises(errors.Error, match="cannot exec a paused container"):
        shim.exec("e2", ["/bin/true"])
    shim.call(Message, "Resume", task)
    assert shim.status().status == 2
    with pytest.raises(errors.Error, match="cannot resume a running container"):
        shim.call(Message, "Resume", task)
    limits = messages.AnyMessage(type_url="x", value=b'{"pids": {"limit": 77}}')
    shim.call(Message, "Update", messages.UpdateTaskRequest(id=shim.id, resources=limits))
    found = shim.call(messages.PidsResponse, "Pids", task).processes
    stats = shim.call(messages.StatsResponse, "Stats", task).stats

    assert {process.pid for process in found} == {pid, exec_pid}
    assert [p.info.value for p in found if p.pid == exec_pid] == [messages.ProcessDetails(exec_id="e").encode()]
    kind = stats.type_url
    assert kind in ("io.containerd.cgroups.v1.Metrics", "io.containerd.cgroups.v2.Metrics")
    metrics = parse_metrics(kind, stats.value)
    assert metrics.pids.current == 2
    assert metrics.pids.limit == 77
    assert metrics.memory.usage.usage > 0 if kind.endswith("v1.Metrics") else metrics.memory.usage > 0

    shim.call(Message, "Pause", task)
    shim.kill(9)
    assert shim.wait() == 137


def parse_metrics(kind: str, value: bytes) -> Any:
    """Parse with the generated protobuf module."""
    if ".v1." in kind:
        from windlass_api.io.containerd.cgroups.v1 import metrics_pb2 as metrics
    else:
        from windlass_api.io.containerd.cgroups.v2 import metrics_pb2 as metrics  # type: ignore[no-redef]
    return metrics.Metrics.FromString(value)


def test_wrong_states_are_refused_in_words(make: Make) -> None:
    """The message names the verb, the state and the container; the code is UNKNOWN (docs/containerd 4.7)."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    with pytest.raises(errors.Error, match="cannot pause a created container: one") as info:
        shim.call(Message, "Pause", messages.TaskRequest(id=shim.id))
    assert info.value.code == errors.Code.UNKNOWN
    shim.start()
    with pytest.raises(errors.Error, match="cannot start a running container: one"):
        shim.start()
    with pytest.raises(errors.Error, match="cannot delete a running container: one; kill it first"):
        shim.delete()
    with pytest.raises(errors.AlreadyExists):
        shim.create(["/bin/true"])
    with pytest.raises(errors.NotFound):
        shim.start("nothing")


def test_a_failing_runc_says_why_and_leaves_nothing(make: Make) -> None:
    """runc's own message reaches the client, and the same id can be created afterwards."""
    shim = make()
    with pytest.raises(errors.Error, match=r"OCI runtime create failed: .*/bin/missing"):
        shim.create(["/bin/missing"])
    shim.make_bundle(["/bin/true"])
    (shim.bundle / "config.json").write_text("{ not json")
    with pytest.raises(errors.Error, match="OCI runtime create failed"):
        shim.call(messages.PidResponse, "Create", messages.CreateTaskRequest(id=shim.id, bundle=str(shim.bundle)))
    with pytest.raises(errors.Error, match="the client makes it before the task"):
        shim.create(["/bin/true"], stdout="/no/such/fifo")
    options = messages.AnyMessage(
        type_url=messages.Options._name, value=messages.Options(binary_name="no-such-runc").encode()
    )
    with pytest.raises(
        errors.FailedPrecondition, match=r'OCI runtime "no-such-runc": executable file not found in \$PATH'
    ):
        shim.create(["/bin/true"], options=options)

    descriptors = []
    for _ in range(2):
        shim.create(["/bin/sleep", "1000"])
        shim.start()
        shim.exec("e", ["/bin/missing"])
        with pytest.raises(errors.Error, match=r"OCI runtime exec failed: .*/bin/missing"):
            shim.start("e")
        shim.delete("e")
        shim.kill(9)
        shim.wait()
        shim.delete()
        shim.sink.wait_for("/tasks/delete")
        descriptors.append(len(os.listdir(f"/proc/{shim.child.pid}/fd")))

    assert descriptors[0] == descriptors[1]
    assert not list((shim.state / "runc" / "test").iterdir())


def test_exits_survive_a_daemon_that_is_away(make: Make) -> None:
    """Events that happen while the daemon is dead arrive, in order, when it is back."""
    shim = make()
    shim.create(["/bin/sh", "-c", "exit 4"])
    shim.sink.wait_for("/tasks/create")
    shim.sink.stop()
    shim.start()
    assert shim.wait() == 4
    shim.delete()
    time.sleep(0.3)

    shim.sink.start()

    shim.sink.wait_for("/tasks/delete")
    assert shim.sink.topics == ["create", "start", "exit", "delete"]


def test_both_versions_of_the_task_service_are_served(make: Make) -> None:
    """v2 and v3 by their names; another service or method is UNIMPLEMENTED."""
    shim = make()
    request = messages.TaskRequest(id="unknown")
    for service in ("containerd.task.v2.Task", "containerd.task.v3.Task"):
        answer = shim.client.call(messages.ConnectResponse, "Connect", request, service)
        assert (answer.shim_pid, answer.task_pid) == (shim.child.pid, 0)
    with pytest.raises(errors.Unimplemented, match="service other"):
        shim.client.call(Message, "Connect", request, "other")
    with pytest.raises(errors.Unimplemented, match="method Nothing"):
        shim.call(Message, "Nothing", request)


def test_one_shim_keeps_several_containers(make: Make) -> None:
    """Shutdown is ignored until the last one is deleted."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    other = shim.bundle.with_name("other")
    shutil.copytree(shim.bundle / "rootfs", other / "rootfs", symlinks=True)
    document = json.loads((shim.bundle / "config.json").read_text())
    document["linux"]["cgroupsPath"] += "-other"  # a group that has processes is refused
    (other / "config.json").write_text(json.dumps(document))
    shim.call(messages.PidResponse, "Create", messages.CreateTaskRequest(id="other", bundle=str(other)))
    shim.delete()

    shim.call(Message, "Shutdown", messages.ShutdownRequest(id="one"))
    request = messages.ProcessRequest(id="other")
    assert shim.call(messages.StateResponse, "State", request).status == 1
    shim.call(messages.DeleteResponse, "Delete", request)
    assert shim.shutdown()


def test_a_wait_ends_on_every_connection(make: Make) -> None:
    """Two clients wait for the same process while a third works on."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    clients = [Client(str(shim.socket_path)) for _ in range(2)]
    streams = [client.send("Wait", messages.ProcessRequest(id=shim.id)) for client in clients]

    shim.kill(9)

    for client, stream in zip(clients, streams, strict=True):
        answer = messages.decode(messages.WaitResponse, client.receive(stream).payload)
        assert answer.exit_status == 137
        client.close()


@pytest.mark.parametrize("kind", ["init", "exec"])
@pytest.mark.parametrize("scheme", ["file", "binary"])
def test_output_goes_to_files_and_loggers(make: Make, scheme: str, kind: str, tmp_path: Path) -> None:
    """file:// appends both streams to one file; binary:// runs a logger on descriptors 3, 4 and 5. Both are URIs."""
    shim = make()
    target = tmp_path / "deep 1" / "log"
    uri = f"file://{quote(str(target))}"
    if scheme == "binary":
        target.parent.mkdir()
        script = tmp_path / "logger+ 1"
        script.write_text(
            f'#!/bin/sh\nexec >"{target}"\necho "$1=$2 $# $CONTAINER_ID $CONTAINER_NAMESPACE"\n'
            f"exec 5>&-\ncat <&3\ncat <&4\necho done\n"
        )
        script.chmod(0o755)
        uri = f"binary://{quote(str(script), safe='/+')}?key=a%20b&bare"

    program = ["/bin/sh", "-c", "echo out; echo err >&2"]
    if kind == "init":
        shim.create(program, stdout=uri, stderr=uri)
        shim.start()
        assert shim.wait() == 0
        shim.delete()
    else:
        shim.create(["/bin/sleep", "1000"])
        shim.start()
        shim.exec("e", program, stdout=uri, stderr=uri)
        shim.start("e")
        assert shim.wait("e") == 0
        shim.delete("e")

    deadline = time.monotonic() + 5
    while not target.exists() or b"err" not in target.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    lines = target.read_text().split("\n")
    if scheme == "file":
        assert sorted(lines) == ["", "err", "out"]
    else:
        assert lines[:3] == [f"key=a b 4 {'one' if kind == 'init' else 'e'} test", "out", "err"]
