"""`windlass-oci` as the OCI runtime of Debian's containerd and dockerd, in place of runc."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.conftest import require_foreign_tools
from compat.images import Archive, busybox_layer
from compat.machines import Machine, eventually
from compat.test_dockerd import IMAGE as DOCKERS
from compat.test_dockerd import dockerd

IMAGE = "docker.io/library/box:1"


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of one word, as both want it."""
    path = tmp_path_factory.mktemp("r") / "windlass-oci"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m windlass_oci_runtime.cli.main "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    require_foreign_tools()
    machine = Machine("containerd", tmp_path_factory.mktemp("o"))
    try:
        machine.start()
        yield machine
    finally:
        machine.close()


def test_containerd_runs_containers_with_it(machine: Machine, runtime: Path, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "box.tar", IMAGE, [busybox_layer()])
    machine.ctr("images", "import", str(archive.path))
    run = ("run", "--runc-binary", str(runtime))
    assert machine.ctr(*run, "--rm", IMAGE, "one", "/bin/echo", "ran") == "ran\n"
    assert machine.try_ctr(*run, "--rm", IMAGE, "two", "/bin/sh", "-c", "exit 7").returncode == 7
    missing = machine.try_ctr(*run, "--rm", IMAGE, "three", "/none")
    assert missing.returncode and "no such file or directory" in missing.stderr
    machine.ctr(*run, "-d", "--memory-limit", str(64 << 20), IMAGE, "box", "/bin/sleep", "1000")
    assert machine.ctr("tasks", "exec", "--exec-id", "e", "box", "/bin/echo", "inside") == "inside\n"
    machine.ctr("tasks", "pause", "box")
    assert machine.status("box") == "PAUSED"
    machine.ctr("tasks", "resume", "box")
    assert str(64 << 20) in machine.ctr("tasks", "metrics", "box")
    machine.ctr("tasks", "kill", "-s", "SIGKILL", "box")
    eventually(lambda: machine.status("box") == "STOPPED")
    machine.remove("box")


def test_dockerd_runs_containers_with_it(machine: Machine, runtime: Path) -> None:
    with dockerd(machine, f"--add-runtime=own={runtime}") as docker:
        run = ("run", "--runtime", "own", "--network", "none")
        assert docker.ask(*run, "--rm", DOCKERS, "echo", "ran") == "ran"
        assert docker.run(*run, "--rm", DOCKERS, "sh", "-c", "exit 7").returncode == 7
        assert docker.run(*run, "--rm", DOCKERS, "none").returncode == 127
        docker.ask(*run, "-d", "--name", "box", "--memory", "64m", DOCKERS, "sleep", "1000")
        assert docker.ask("exec", "box", "echo", "inside") == "inside"
        docker.ask("update", "--memory", "128m", "--memory-swap", "128m", "box")
        docker.ask("pause", "box")
        docker.ask("unpause", "box")
        assert "sleep" in docker.ask("top", "box")
        docker.ask("rm", "-f", "box")
