"""Our shim as an executable: Debian's containerd runs containers with it, as it does with its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.conftest import IMAGE, require_foreign_tools, run_machine
from compat.images import Archive
from compat.machines import Machine, eventually

RUNTIME = ("--runtime", "io.containerd.windlass.v1")
SHIM = "containerd-shim-windlass-v1"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, busy: Archive) -> Iterator[Machine]:
    """A containerd that finds our shim on its PATH."""
    require_foreign_tools()
    scripts = Path(sys.executable).parent
    if not (scripts / SHIM).exists():
        pytest.skip(f"{SHIM} is not installed; pip install plugins/shim_runc")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{scripts}:{os.environ['PATH']}")
        yield from run_machine("containerd", tmp_path_factory.mktemp("s"), busy)


@pytest.fixture
def name(daemon: Machine) -> Iterator[str]:
    """An id for a container, which is gone afterwards."""
    found = daemon.new_id()
    yield found
    daemon.remove(found)


def shims(daemon: Machine) -> list[str]:
    """Return the shims of this daemon that run."""
    lines = [path.read_bytes().replace(b"\0", b" ").decode() for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [line for line in lines if SHIM in line and daemon.namespace in line]


def test_output_and_exit_status_arrive(daemon: Machine, name: str) -> None:
    """And nothing is left of the run."""
    done = daemon.try_ctr("run", "--rm", *RUNTIME, IMAGE, name, "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    eventually(lambda: not shims(daemon))


def test_a_container_lives_through_its_whole_life(daemon: Machine, name: str) -> None:
    """Run, exec, pause, resume, metrics, kill, delete."""
    daemon.ctr("run", "-d", *RUNTIME, IMAGE, name, "/bin/sleep", "1000")
    assert daemon.status(name) == "RUNNING"
    assert daemon.ctr("tasks", "exec", "--exec-id", "e", name, "/bin/echo", "inside") == "inside\n"
    daemon.ctr("tasks", "pause", name)
    assert daemon.status(name) == "PAUSED"
    daemon.ctr("tasks", "resume", name)
    assert "memory" in daemon.ctr("tasks", "metrics", name)
    daemon.ctr("tasks", "kill", "-s", "SIGKILL", name)
    eventually(lambda: daemon.status(name) == "STOPPED")
    daemon.ctr("tasks", "rm", name)
    eventually(lambda: not shims(daemon))


def test_the_shim_outlives_containerd(daemon: Machine, name: str) -> None:
    """After kill -9 the next containerd finds the container running."""
    daemon.ctr("run", "-d", *RUNTIME, IMAGE, name, "/bin/sleep", "1000")
    daemon.kill()
    daemon.start()
    assert daemon.status(name) == "RUNNING"
    assert daemon.ctr("tasks", "exec", "--exec-id", "e", name, "/bin/echo", "still") == "still\n"


def test_a_container_whose_program_is_missing_is_refused_and_leaves_nothing(daemon: Machine, name: str) -> None:
    """runc's own words reach the client."""
    done = daemon.try_ctr("run", "--rm", *RUNTIME, IMAGE, name, "/no/such/program")
    assert done.returncode and "/no/such/program" in done.stderr
    eventually(lambda: not shims(daemon))
