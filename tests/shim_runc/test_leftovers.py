"""What is done after a shim that has died, by the files it wrote."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from windlass.contracts.mounts import Mount
from windlass_linux import mounting
from windlass_shim_runc import messages
from windlass_shim_runc.leftovers import await_runtimes, clean, delete, delete_command, remove_socket

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts need root on Linux")


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({}, "runc --root {state}/runc/ns delete --force box"),
        ({"runtime": "/opt/crun\n", "options.json": '{"root": "/r", "systemd_cgroup": true}'},
         "/opt/crun --root /r/ns --systemd-cgroup delete --force box"),
        ({"options.json": "not JSON"}, "runc --root {state}/runc/ns delete --force box"),
        ({"options.json": "[]"}, "runc --root {state}/runc/ns delete --force box"),
    ],
)  # fmt: skip
def test_a_dead_shims_container_is_ended_as_it_was_made(tmp_path: Path, files: dict[str, str], command: str) -> None:
    """Program, root and cgroup driver are those that the shim wrote down."""
    bundle = tmp_path / "io.containerd.runtime.v2.task/ns/box"
    bundle.mkdir(parents=True)
    for name, text in files.items():
        (bundle / name).write_text(text)
    found = delete_command(str(bundle), "ns", "box")
    words = command.format(state=tmp_path).split()
    assert found == (words[words.index("--root") + 1], words)


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("/bin/false", "/bin/false {command} ended with 1"),
        (
            "/no/such/runtime",
            "cannot run /no/such/runtime {command}: No such file or directory",
        ),
        ("/bin/true", "the OCI runtime still has {root}/ns/box"),
    ],
)
def test_a_container_that_the_runtime_keeps_is_not_clean(tmp_path: Path, program: str, problem: str) -> None:
    """What is left, and why, is told to whoever asked."""
    bundle, directory = made(tmp_path, program)
    (directory / "state.json").touch()
    command = f"--root {tmp_path}/ns delete --force box"
    assert told(bundle) == problem.format(root=tmp_path, command=command)


@pytest.mark.parametrize("program", ["/bin/false", "/no/such/runtime"])
def test_a_process_that_runs_is_not_clean(tmp_path: Path, program: str) -> None:
    """Also when the runtime keeps its state elsewhere, or nowhere any more."""
    bundle, directory = made(tmp_path, program)
    directory.rmdir()
    (bundle / "init.pid").write_text(str(os.getpid()))
    assert program in told(bundle)
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        (bundle / "init.pid").write_text(str(process.pid))
        assert told(bundle) == "done"


def test_a_runtime_that_fails_over_nothing_is_no_trouble(tmp_path: Path) -> None:
    """The container was never made."""
    bundle, directory = made(tmp_path, "/bin/false")
    directory.rmdir()
    assert told(bundle) == "done"


def test_what_a_killed_runtime_has_begun_is_removed(tmp_path: Path) -> None:
    """Its directory, with the FIFO and the mount of itself in it; the runtime knows nothing of it yet."""
    bundle, directory = made(tmp_path, "/bin/true")
    os.mkfifo(directory / "exec.fifo")
    (directory / "runc.AbCdEf").touch()
    mounting.mount_one(Mount("bind", "/bin/true", options=("bind", "ro")), str(directory / "runc.AbCdEf"))
    assert told(bundle) == "done"
    assert not directory.exists()


def test_a_frozen_runtime_is_killed(tmp_path: Path) -> None:
    """The daemon says how long it waits, and we take less."""
    program = tmp_path / "frozen"
    program.write_text("#!/bin/sh\nkill -STOP $$\n")
    program.chmod(0o755)
    bundle, directory = made(tmp_path, str(program))
    (directory / "state.json").touch()
    assert clean((str(bundle), "ns", "box", "0.2"), ()) == 1


def made(directory: Path, program: str) -> tuple[Path, Path]:
    """Return a bundle of a container that a runtime has made, and where the runtime keeps it."""
    bundle, kept = directory / "bundle", directory / "ns" / "box"
    bundle.mkdir()
    kept.mkdir(parents=True)
    (bundle / "runtime").write_text(program)
    (bundle / "options.json").write_text(json.dumps({"root": str(directory)}))
    return bundle, kept


def told(bundle: Path) -> str:
    """Clean, and return what the daemon gets to read; the exit status is 0 when all is gone."""
    ours, theirs = os.pipe()
    try:
        status = clean((str(bundle), "ns", "box"), (theirs,))
        answer = os.read(ours, 4096).decode()
        assert (status == 0) == (answer == "done")
        return answer
    finally:
        os.close(ours)
        os.close(theirs)


def working(bundle: Path, seconds: str = "60") -> subprocess.Popen[bytes]:
    """Return a process that looks like a runtime which works on a bundle, and goes on for some seconds."""
    code = f"import time; time.sleep({seconds})"
    command = [sys.executable, "-c", code, "--log", f"{bundle}/log.json", "create"]
    return subprocess.Popen(command, start_new_session=True)


def test_a_runtime_that_a_dead_shim_began_is_awaited_then_killed(tmp_path: Path) -> None:
    """It would go on making what is being deleted; that of another bundle, of the same beginning, goes on."""
    ours, other = tmp_path / "box", tmp_path / "box2"
    with working(ours) as process, working(other) as others:
        try:
            await_runtimes(str(ours), 0.2)
            assert process.wait(20) == -9
            assert others.poll() is None
        finally:
            process.kill()
            others.kill()


def test_a_runtime_that_ends_by_itself_is_not_killed(tmp_path: Path) -> None:
    """It may be about to clean up after itself; more time than that is not taken."""
    with working(tmp_path, "0.3") as process:
        begun = time.monotonic()
        await_runtimes(str(tmp_path), 60)
        assert time.monotonic() - begun < 30
        assert process.wait(20) == 0


def test_what_another_daemon_made_is_left_alone(tmp_path: Path) -> None:
    """Two daemons with one root have one container of a name, and its own bundle's daemon ends it."""
    bundle, directory = made(tmp_path, "/no/such/runtime")
    (directory / "state.json").write_text('{"config": {"labels": ["bundle=/another/bundle"]}}')
    assert told(bundle) == "done"
    assert (directory / "state.json").exists()


def test_delete_answers_with_what_is_known_of_the_container(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its pid, the status of a killed process, and when; what stays is on standard error for the daemon's log."""
    bundle, directory = made(tmp_path, "/bin/false")
    (directory / "state.json").touch()
    (bundle / "init.pid").write_text("4194305\n")
    before = time.time_ns()
    answer = messages.decode(messages.DeleteResponse, delete(str(bundle), "ns", "box"))
    assert (answer.pid, answer.exit_status) == (4194305, 137)
    assert before // 10**9 <= answer.exited_at.seconds <= time.time_ns() // 10**9
    assert capsys.readouterr().err.startswith("container box is not gone: /bin/false ")


def test_a_dead_shims_socket_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    """Another container of the pod may have it; what is no socket of a shim is never removed."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        remove_socket(f"unix://{path}")
        assert path.exists()
    remove_socket(f"unix://{path}")
    assert not path.exists()
    path.mkdir()
    (tmp_path / "file").touch()
    for address in ("", "relative", f"unix://{path}", f"unix://{tmp_path}/file", f"unix://{tmp_path}/gone"):
        remove_socket(address)
    assert path.exists()
    assert (tmp_path / "file").exists()


def test_a_daemon_that_is_gone_gets_no_answer(tmp_path: Path) -> None:
    """The next one asks again; what was ended stays so."""
    ours, theirs = os.pipe()
    os.close(ours)
    bundle, directory = made(tmp_path, "/bin/true")
    assert clean((str(bundle), "ns", "box"), (theirs,)) == 0
    os.close(theirs)
    assert not directory.exists()
