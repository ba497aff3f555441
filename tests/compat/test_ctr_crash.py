"""`kill -9` of the daemon, and of its zygote, with a running container: it runs on, and its exit code arrives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.images import Archive
from compat.machines import Machine, eventually

IMAGE = "docker.io/library/busy:1"
WINDLASS = [sys.executable, "-c", "import sys; from windlass_client.cli import main; sys.exit(main())"]


@pytest.fixture(params=["windlass", "containerd"])
def own(request: pytest.FixtureRequest, tmp_path: Path, busy: Archive) -> Iterator[Machine]:
    """A daemon of the test's own, which may be killed."""
    machine = Machine(request.param, tmp_path)
    try:
        machine.start()
        machine.ctr("images", "import", str(busy.path))
        yield machine
    finally:
        machine.close()


def children(pid: int) -> list[int]:
    """Return the processes that ``pid`` has started."""
    return [
        int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()
    ]


def title(pid: int) -> str:
    """Return what `ps` shows of a process, "" when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().strip("\0 ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def zygotes(pid: int) -> list[int]:
    """Return those of its children that fork shims and workers."""
    return [child for child in children(pid) if title(child) == "windlass-zygote"]


def test_a_container_outlives_the_daemon(own: Machine) -> None:
    """The next daemon lists it RUNNING with the same pid, runs a second process in it, and hears how it ends."""
    script = "while [ ! -e /stop ]; do sleep 0.1; done; exit 7"
    own.ctr("run", "-d", IMAGE, "survivor", "/bin/sh", "-c", script)
    before = own.rows("tasks", "ls")["survivor"]

    own.kill()
    assert Path(f"/proc/{before[1]}").exists()
    own.start()

    assert own.rows("tasks", "ls")["survivor"] == before
    assert own.ctr("tasks", "exec", "--exec-id", "in", "survivor", "/bin/echo", "still here") == "still here\n"
    with own.background("tasks", "attach", "survivor") as attached:
        own.ctr("tasks", "exec", "--exec-id", "end", "survivor", "/bin/touch", "/stop")
        assert attached.wait(20) == 7


def test_a_container_that_ends_while_there_is_no_daemon_is_not_forgotten(own: Machine) -> None:
    """The next daemon lists it STOPPED, and its exit code is told when it is removed."""
    own.ctr("run", "-d", IMAGE, "mortal", "/bin/sleep", "1000")
    pid = int(own.rows("tasks", "ls")["mortal"][1])

    own.kill()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    own.start()

    removed = own.try_ctr("tasks", "rm", "mortal")
    if own.kind == "windlass":
        assert "task mortal exit with non-zero exit code 137" in removed.stderr
    own.ctr("containers", "rm", "mortal")
    assert not own.rows("containers", "ls")


@pytest.mark.parametrize("own", ["windlass"], indirect=True)
def test_a_container_outlives_the_zygote(own: Machine) -> None:
    """What runs runs on and is heard when it ends, and new containers start."""
    own.ctr("run", "-d", IMAGE, "old", "/bin/sleep", "1000")
    killed = zygotes(own.pid)
    assert killed
    for zygote in killed:
        os.kill(zygote, signal.SIGKILL)
    eventually(lambda: not set(killed) & set(zygotes(own.pid)))

    assert own.status("old") == "RUNNING"
    assert own.ctr("run", "--rm", IMAGE, "new", "/bin/echo", "new") == "new\n"
    assert zygotes(own.pid)
    with own.background("tasks", "attach", "old") as attached:
        own.ctr("tasks", "kill", "-s", "SIGKILL", "old")
        assert attached.wait(20) == 137


def test_our_client_waits_for_a_daemon_that_accepts_late(own: Machine) -> None:
    """On a busy machine a connection takes its time; the call's deadline counts, not the connection's."""
    os.kill(own.pid, signal.SIGSTOP)
    wake = threading.Timer(1.5, os.kill, [own.pid, signal.SIGCONT])
    wake.start()
    command = [*WINDLASS, "-a", own.address, "-n", own.namespace, "image", "ls", "--format", "{{.Repository}}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    wake.join()
    assert (done.stdout, done.stderr) == ("busy\n", "")
