"""Our shim as an executable, by `--runtime io.containerd.windlass.v1` with Debian's containerd and with windlassd."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.conftest import IMAGE, run_machine
from compat.images import Archive
from compat.machines import Machine, eventually

SHIM = "containerd-shim-windlass-v1"
RUNTIME = ("--runtime", "io.containerd.windlass.v1")
BINARIES = Path(sys.executable).parent


@pytest.fixture(scope="module", params=["containerd", "windlass"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, busy: Archive) -> Iterator[Machine]:
    """A daemon that finds our executable in its PATH."""
    if not (BINARIES / SHIM).exists():
        pytest.skip(f"{SHIM} is not installed; pip install plugins/shim_runc")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{BINARIES}:{os.environ['PATH']}")
        yield from run_machine(request.param, tmp_path_factory.mktemp("s"), busy)


@pytest.fixture
def name(host: Machine) -> Iterator[str]:
    """An id for a container, which is gone afterwards, with its shim."""
    found = host.new_id()
    yield found
    host.remove(found)
    eventually(lambda: not shims_of(host, found))


def shims_of(host: Machine, container: str) -> list[int]:
    """Return the processes of our executable that serve a container."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if SHIM.encode() in b" ".join(words) and host.namespace.encode() in words and container.encode() in words:
            found.append(int(entry.name))
    return found


def test_output_and_exit_codes_arrive(host: Machine, name: str) -> None:
    """run --rm, three times: success, a status, a program that does not exist."""
    assert host.ctr("run", "--rm", *RUNTIME, IMAGE, name, "/bin/echo", "hello") == "hello\n"
    assert host.try_ctr("run", "--rm", *RUNTIME, IMAGE, name, "/bin/sh", "-c", "exit 7").returncode == 7
    missing = host.try_ctr("run", "--rm", *RUNTIME, IMAGE, name, "/bin/missing")
    assert missing.returncode != 0
    assert "/bin/missing" in missing.stderr
    eventually(lambda: not shims_of(host, name))


def test_standard_input_reaches_the_program(host: Machine, name: str) -> None:
    """All of it, and then the end."""
    data = os.urandom(100000)
    out = host.ctr("run", "--rm", *RUNTIME, IMAGE, name, "/bin/sha256sum", data=data)
    assert out.split()[0] == hashlib.sha256(data).hexdigest()


def test_a_running_container_is_entered_paused_and_killed(host: Machine, name: str) -> None:
    """exec, pause, resume, metrics, ps, kill, rm; one shim as long as it runs."""
    host.ctr("run", "-d", *RUNTIME, IMAGE, name, "/bin/sleep", "1000")
    assert len(shims_of(host, name)) == 1
    assert host.ctr("tasks", "exec", "--exec-id", "e", name, "/bin/echo", "in") == "in\n"
    assert host.try_ctr("tasks", "exec", "--exec-id", "f", name, "/bin/sh", "-c", "exit 9").returncode == 9
    host.ctr("tasks", "pause", name)
    assert host.status(name) == "PAUSED"
    host.ctr("tasks", "resume", name)
    assert "memory" in host.ctr("tasks", "metrics", name)
    assert len(host.ctr("tasks", "ps", name).splitlines()) == 2
    host.ctr("tasks", "kill", "-s", "SIGKILL", name)
    eventually(lambda: host.status(name) == "STOPPED")
    assert host.try_ctr("tasks", "rm", name).returncode in (0, 137)
    eventually(lambda: not shims_of(host, name))


def test_a_daemon_that_crashes_finds_the_container_running(host: Machine, name: str) -> None:
    """kill -9 and start: RUNNING, entered, and its exit status is known."""
    host.ctr("run", "-d", *RUNTIME, IMAGE, name, "/bin/sh", "-c", "while [ ! -e /end ]; do sleep 0.05; done; exit 5")
    shim = shims_of(host, name)
    host.kill()
    host.start()

    assert host.status(name) == "RUNNING"
    assert shims_of(host, name) == shim
    host.ctr("tasks", "exec", "--exec-id", "e", name, "/bin/sh", "-c", "echo >/end")
    eventually(lambda: host.status(name) == "STOPPED")
    assert "non-zero exit code 5" in host.try_ctr("tasks", "rm", name).stderr


def test_a_shim_that_is_killed_leaves_nothing_running(host: Machine, name: str) -> None:
    """The daemon has our `delete` end the container; nothing is left, and the name can be used again."""
    host.ctr("run", "-d", *RUNTIME, IMAGE, name, "/bin/sleep", "1000")
    pid = int(host.rows("tasks", "ls")[name][1])
    bundle = host.state / "io.containerd.runtime.v2.task" / host.namespace / name
    address = Path((bundle / "address").read_text().removeprefix("unix://"))
    assert address.is_socket()
    for shim in shims_of(host, name):
        os.kill(shim, signal.SIGKILL)

    eventually(lambda: not Path(f"/proc/{pid}").exists())
    eventually(lambda: host.status(name) in ("", "STOPPED", "UNKNOWN"))
    host.remove(name)
    eventually(lambda: not (host.state / "runc" / host.namespace / name).exists())
    assert not address.exists()
    assert host.ctr("run", "--rm", *RUNTIME, IMAGE, name, "/bin/echo", "again") == "again\n"
