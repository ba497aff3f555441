"""What is done after a shim that has died, by the files it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from windlass.contracts.mounts import Mount
from windlass_linux import mounting
from windlass_shim_runc.leftovers import clean, delete_command

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
