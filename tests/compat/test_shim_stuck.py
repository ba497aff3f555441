"""Never stuck: an OCI runtime that hangs, deadlines, hooks, and a delete that succeeds in the end."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from shim_runc.harness import Client, Shim, shims

from windlass import errors
from windlass_shim_runc import messages
from windlass_shim_runc.messages import Message

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="containers need root on Linux"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed: apt install runc"),
]

Make = Callable[..., Shim]

IMPATIENT = "shim_runc.impatient:serve"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A maker of shims, whose containers are gone afterwards."""
    with shims(tmp_path) as maker:
        yield maker


class Freezer:
    """An OCI runtime that stops for ever at the verbs that are frozen."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        program = directory / "frozen" / "runc"
        program.parent.mkdir()
        program.write_text(
            f'#!/bin/sh\nfor word; do [ -e "{directory}/frozen/at-$word" ] && kill -STOP $$; done\nexec runc "$@"\n'
        )
        program.chmod(0o755)
        self.options = messages.pack(messages.Options(binary_name=str(program)))

    def freeze(self, verb: str) -> None:
        """Stop at this verb."""
        (self.directory / "frozen" / f"at-{verb}").touch()

    def thaw(self, verb: str) -> None:
        """Stop no more."""
        (self.directory / "frozen" / f"at-{verb}").unlink()


def process(shim: Shim, exec_id: str = "") -> messages.ProcessRequest:
    """Name a process of a shim's container."""
    return messages.ProcessRequest(id=shim.id, exec_id=exec_id)


def test_a_frozen_create_ends_within_the_clients_deadline(make: Make, tmp_path: Path) -> None:
    """The error names the step; the runtime is killed, and the same container can be made afterwards."""
    shim, freezer = make(), Freezer(tmp_path)
    freezer.freeze("create")
    shim.make_bundle(["/bin/true"])
    request = messages.CreateTaskRequest(id=shim.id, bundle=str(shim.bundle), options=freezer.options)

    with pytest.raises(errors.DeadlineExceeded, match=r"OCI runtime create of one did not end in .* and was killed"):
        shim.client.call(messages.PidResponse, "Create", request, timeout=1.0)

    freezer.thaw("create")
    shim.call(messages.PidResponse, "Create", request)
    shim.start()
    assert shim.wait() == 0
    shim.delete()


def test_a_runtime_that_is_killed_takes_with_it_what_it_has_begun(make: Make, tmp_path: Path) -> None:
    """An exec of which nobody knows must not run: runc's own child is in another session, and may be frozen."""
    shim, begun = make(), tmp_path / "begun"
    program = tmp_path / "fake" / "runc"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nbegin() {{ setsid sh -c "echo \\$\\$ >{begun}; sleep 1000" & wait; }}\n'
        'for word; do [ "$word" = exec ] && begin; done\nexec runc "$@"\n'
    )
    program.chmod(0o755)
    shim.create(["/bin/sleep", "1000"], options=messages.pack(messages.Options(binary_name=str(program))))
    shim.start()
    shim.exec("e", ["/bin/sleep", "1000"])

    with pytest.raises(errors.DeadlineExceeded, match="OCI runtime exec of one did not end"):
        shim.client.call(messages.PidResponse, "Start", process(shim, "e"), timeout=1.0)

    pid = int(begun.read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    shim.delete("e")


def test_what_is_started_while_its_container_is_paused_does_not_run_after_its_deadline(make: Make) -> None:
    """runc has put it into the frozen cgroup already, or not: after the deadline nothing of it is left."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    other = Client(str(shim.socket_path))
    for number in range(6):
        shim.exec(f"e{number}", ["/bin/sleep", "1000"])
        starting = other.send("Start", process(shim, f"e{number}"), timeout=1.0)
        time.sleep(0.01 * number)
        shim.call(Message, "Pause", messages.TaskRequest(id=shim.id))
        started = other.receive(starting).code == 0
        shim.call(Message, "Resume", messages.TaskRequest(id=shim.id))
        if started:
            shim.kill(9, f"e{number}")
            shim.wait(f"e{number}")
        shim.delete(f"e{number}")
    other.close()

    deadline = time.monotonic() + 10
    while len(shim.call(messages.PidsResponse, "Pids", messages.TaskRequest(id=shim.id)).processes) > 1:
        assert time.monotonic() < deadline, "an exec runs that nobody knows"
        time.sleep(0.05)


@pytest.mark.parametrize(("verb", "method"), [("pause", "Pause"), ("kill", "Kill"), ("update", "Update")])
def test_a_frozen_runtime_holds_up_one_call_only(make: Make, tmp_path: Path, verb: str, method: str) -> None:
    """State answers meanwhile, the call gets its error, and the container can be killed and deleted."""
    shim, freezer = make(), Freezer(tmp_path)
    shim.create(["/bin/sleep", "1000"], options=freezer.options)
    shim.start()
    freezer.freeze(verb)
    request: Message = messages.TaskRequest(id=shim.id)
    if method == "Kill":
        request = messages.KillRequest(id=shim.id, signal=15, all=True)
    elif method == "Update":
        request = messages.UpdateTaskRequest(id=shim.id, resources=messages.AnyMessage(type_url="x", value=b"{}"))
    stream = shim.client.send(method, request, timeout=1.0)

    assert shim.status().status == 2
    answer = shim.client.receive(stream)
    assert (answer.code, answer.message.partition(" did not end")[0]) == (4, f"OCI runtime {verb} of one")
    freezer.thaw(verb)
    shim.kill(9)
    assert shim.wait() == 137
    shim.delete()


def test_a_frozen_delete_can_be_tried_again(make: Make, tmp_path: Path) -> None:
    """The early forgetting hangs and so does the first delete; the second succeeds, and the events come once."""
    shim, freezer = make(), Freezer(tmp_path)
    shim.create(["/bin/true"], options=freezer.options)
    freezer.freeze("delete")
    shim.start()
    shim.wait()
    shim.sink.wait_for("/tasks/exit")

    with pytest.raises(errors.DeadlineExceeded, match="Delete was not done in 1 s"):
        shim.client.call(messages.DeleteResponse, "Delete", process(shim), timeout=1.0)

    assert shim.status().status == 3
    freezer.thaw("delete")
    kill_stopped(tmp_path)
    shim.delete()
    shim.sink.wait_for("/tasks/delete")
    assert shim.sink.topics == ["create", "start", "exit", "delete"]
    assert not list((shim.state / "runc" / "test").iterdir())


def kill_stopped(directory: Path) -> None:
    """Kill the frozen runtimes of this directory."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"{directory}/frozen/runc".encode() in words and state == "T":
            os.kill(int(entry.name), 9)


def test_a_wait_with_a_deadline_ends_with_it(make: Make) -> None:
    """DEADLINE_EXCEEDED that names the call; a wait without one goes on."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    with pytest.raises(errors.DeadlineExceeded, match=r"Wait was not done in 0\.3 s"):
        shim.client.call(messages.WaitResponse, "Wait", process(shim), timeout=0.3)
    shim.kill(9)
    assert shim.client.call(messages.WaitResponse, "Wait", process(shim), timeout=5).exit_status == 137
    shim.delete()


@pytest.mark.parametrize("kind", ["missing", "directory", "file as stdin", "scheme"])
def test_an_exec_with_impossible_streams_says_so_and_can_be_deleted(make: Make, tmp_path: Path, kind: str) -> None:
    """A path that is not there, is no FIFO, or has a scheme nobody knows."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    (tmp_path / "file").touch()
    # Any: fields of the request
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "missing": ({"stdout": "/no/such/fifo"}, "cannot open stdout /no/such/fifo"),
        "directory": ({"stderr": str(tmp_path)}, "neither a FIFO nor a regular file"),
        "file as stdin": ({"stdin": str(tmp_path / "file")}, "is not a FIFO"),
        "scheme": ({"stdout": "ttrpc+unix:///x"}, r"stdio scheme ttrpc\+unix:// is not known"),
    }
    streams, message = cases[kind]
    shim.exec("e", ["/bin/true"], **streams)

    with pytest.raises(errors.Error, match=message):
        shim.start("e")

    shim.delete("e")
    shim.exec("e", ["/bin/true"])
    shim.start("e")
    assert shim.wait("e") == 0


def hooked(shim: Shim, runtime: messages.AnyMessage, told: Path) -> None:
    """Create a container whose poststop hook writes a line."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat >/dev/null; echo stopped >>{told}"]}
    shim.make_bundle(["/bin/true"], hooks={"poststop": [hook]})
    request = messages.CreateTaskRequest(id=shim.id, bundle=str(shim.bundle), options=runtime)
    shim.call(messages.PidResponse, "Create", request)


def test_an_exec_whose_terminal_never_comes_is_killed_and_can_be_deleted(make: Make, tmp_path: Path) -> None:
    """The caller is told within its deadline; the process is reported as any other, and no delete waits in vain."""
    program = tmp_path / "mute" / "runc"
    program.parent.mkdir()
    # It starts the process in a terminal of its own choice, and sends none.
    program.write_text(
        '#!/bin/sh\nfor word; do case $word in --pid-file) take=1;; *) [ -n "$take" ] && pid=$word; take=;; esac\n'
        'case $word in exec) mute=1;; esac; done\n[ -z "$mute" ] && exec runc "$@"\n'
        "sleep 1000 </dev/null >/dev/null 2>&1 &\nprintf $! >$pid\n"
    )
    program.chmod(0o755)
    shim = make()
    shim.create(["/bin/sleep", "1000"], options=messages.pack(messages.Options(binary_name=str(program))))
    shim.start()
    out = shim.fifo("out")
    shim.exec("e", ["/bin/tty"], terminal=True, stdout=out)

    with pytest.raises(errors.Error, match="terminal"):
        shim.client.call(messages.PidResponse, "Start", process(shim, "e"), timeout=1.0)

    assert shim.wait("e") == 137
    assert shim.client.call(messages.DeleteResponse, "Delete", process(shim, "e"), timeout=5.0).exit_status == 137
    shim.sink.wait_for("/tasks/exit")
    assert shim.sink.topics[-2:] == ["exec-added", "exit"]


def test_a_poststop_hook_runs_at_delete(make: Make, tmp_path: Path) -> None:
    """Not at the exit, as without hooks: deletion is its moment, and once."""
    shim, told = make(), tmp_path / "told"
    hooked(shim, messages.AnyMessage(), told)
    shim.start()
    shim.wait()
    shim.sink.wait_for("/tasks/exit")
    time.sleep(0.2)
    assert not told.exists()
    assert (shim.state / "runc" / "test" / "one").exists()

    shim.delete()

    assert told.read_text() == "stopped\n"


def test_delete_makes_up_for_an_early_forgetting_that_failed(make: Make, tmp_path: Path) -> None:
    """The runtime could not forget the container after its exit: it still can at delete."""
    program = tmp_path / "flaky" / "runc"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nfor word; do [ "$word" = delete ] && mkdir {tmp_path}/failed 2>/dev/null && exit 1; done\n'
        'exec runc "$@"\n'
    )
    program.chmod(0o755)
    shim = make()
    shim.create(["/bin/true"], options=messages.pack(messages.Options(binary_name=str(program))))
    shim.start()
    shim.wait()
    deadline = time.monotonic() + 5
    while not (tmp_path / "failed").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (shim.state / "runc" / "test" / "one").exists()

    shim.delete()

    assert not (shim.state / "runc" / "test" / "one").exists()


def test_resources_that_are_no_json_are_refused_by_the_runtime(make: Make) -> None:
    """Update passes them on and hands back runc's words."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    bad = messages.AnyMessage(type_url="x", value=json.dumps(["no"]).encode())
    with pytest.raises(errors.Error, match="OCI runtime update failed: "):
        shim.call(Message, "Update", messages.UpdateTaskRequest(id=shim.id, resources=bad))


def test_figures_of_a_stopped_container_are_not_found(make: Make) -> None:
    """Stats and Pids of a task whose process has ended."""
    shim = make()
    shim.create(["/bin/true"])
    shim.start()
    shim.wait()
    for method in ("Stats", "Pids"):
        with pytest.raises(errors.NotFound, match="cgroup of container one is gone"):
            shim.call(Message, method, messages.TaskRequest(id=shim.id))


@pytest.mark.parametrize("is_ready", [True, False])
def test_a_logger_that_does_not_end_is_gone_with_its_container(tmp_path: Path, is_ready: bool) -> None:
    """It heeds neither end of file nor SIGTERM, or has never become ready; no shim is left that could end it later."""
    program, pid_file = tmp_path / "logger", tmp_path / "pid"
    ready = "exec 5>&-" if is_ready else ":"
    program.write_text(f"#!/bin/sh\ntrap '' TERM\necho $$ >{pid_file}\n{ready}\nwhile :; do sleep 0.1; done\n")
    program.chmod(0o755)
    with shims(tmp_path, IMPATIENT) as make:
        shim = make()
        if is_ready:
            shim.create(["/bin/true"], stdout=f"binary://{program}")
            shim.start()
            shim.wait()
            shim.delete()
        else:
            with pytest.raises(errors.DeadlineExceeded, match="was not ready"):
                shim.create(["/bin/true"], stdout=f"binary://{program}")
        assert shim.shutdown()
        assert not Path(f"/proc/{pid_file.read_text().strip()}").exists()


def test_a_logger_that_has_ended_is_sent_no_signal(tmp_path: Path) -> None:
    """By then its number may be another's; and nothing waits for it."""
    with shims(tmp_path, IMPATIENT) as make:
        shim = make()
        shim.create(["/bin/sleep", "1000"], stdout="binary:///bin/true")
        shim.start()
        shim.rest()
        shim.kill(9)
        assert shim.wait() == 137
        shim.delete()
