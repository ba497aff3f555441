"""What is done after a shim that has died, by the files it wrote."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

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
    assert delete_command(str(bundle), "ns", "box") == command.format(state=tmp_path).split()


@pytest.mark.parametrize(("program", "status"), [("/bin/false", 1), ("/no/such/runtime", 1), ("/bin/true", 0)])
def test_the_status_is_the_runtimes(tmp_path: Path, program: str, status: int) -> None:
    """A runtime that fails or is not there does not keep the rest from being cleaned."""
    (tmp_path / "runtime").write_text(program)
    assert clean((str(tmp_path), "ns", "box"), ()) == status


def test_a_frozen_runtime_is_killed(tmp_path: Path) -> None:
    """The daemon says how long it waits, and we take less."""
    program = tmp_path / "frozen"
    program.write_text("#!/bin/sh\nkill -STOP $$\n")
    program.chmod(0o755)
    (tmp_path / "runtime").write_text(str(program))
    assert clean((str(tmp_path), "ns", "box", "0.2"), ()) == 1
