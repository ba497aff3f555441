"""`windlass-oci` under other programs that run containers: Debian's containerd and Debian's dockerd."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.conftest import require_foreign_tools, run_machine
from compat.images import Archive
from compat.machines import Machine, eventually
from compat.test_dockerd import IMAGE, NO_NETWORK, RUN, Docker, dockerd, program
from polling import is_readable

BUSY = "docker.io/library/busy:1"
RUNTIME = Path(sys.prefix) / "bin/windlass-oci"

pytestmark = pytest.mark.skipif(not RUNTIME.exists(), reason="windlass-oci is not installed; pip install oci_runtime")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory, busy: Archive) -> Iterator[Machine]:
    """Debian's containerd."""
    yield from run_machine("containerd", tmp_path_factory.mktemp("u"), busy)


def run(machine: Machine, *arguments: str) -> tuple[int, str, str]:
    """Run a container with windlass-oci to its end."""
    done = machine.try_ctr("run", "--rm", "--runc-binary", str(RUNTIME), *arguments)
    return done.returncode, done.stdout, done.stderr


def test_containerd_runs_containers(foreign: Machine) -> None:
    """Exit codes, streams, limits; and the words that clients look for when a program is missing."""
    assert run(foreign, BUSY, "u1", "/bin/sh", "-c", "echo out; echo err >&2; exit 7") == (7, "out\n", "err\n")
    assert run(foreign, "--memory-limit", "67108864", BUSY, "u2", "/bin/true")[0] == 0
    code, _, said = run(foreign, BUSY, "u3", "/no/such")
    assert code == 1 and "/no/such" in said and "no such file or directory" in said


def test_containerd_drives_a_running_container(foreign: Machine) -> None:
    """Exec, processes, pause, metrics, kill, delete."""
    foreign.ctr("run", "-d", "--runc-binary", str(RUNTIME), BUSY, "sleeper", "/bin/sleep", "1000")
    executed = foreign.try_ctr("tasks", "exec", "--exec-id", "e1", "sleeper", "/bin/sh", "-c", "echo inside; exit 3")
    assert (executed.returncode, executed.stdout) == (3, "inside\n")
    assert len(foreign.ctr("tasks", "ps", "sleeper").splitlines()) == 2
    foreign.ctr("tasks", "pause", "sleeper")
    assert foreign.status("sleeper") == "PAUSED"
    foreign.ctr("tasks", "resume", "sleeper")
    assert "memory.usage_in_bytes" in foreign.ctr("tasks", "metrics", "sleeper")
    foreign.ctr("tasks", "kill", "-s", "SIGKILL", "sleeper")
    eventually(lambda: foreign.status("sleeper") == "STOPPED")
    foreign.ctr("tasks", "rm", "sleeper")
    foreign.ctr("containers", "rm", "sleeper")


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """Debian's dockerd on Debian's containerd, whose default runtime is windlass-oci."""
    require_foreign_tools()
    program("dockerd")
    machine = Machine("containerd", tmp_path_factory.mktemp("ud"))
    options = ("--add-runtime", f"windlass={RUNTIME}", "--default-runtime", "windlass")
    try:
        machine.start()
        with dockerd(machine, (*NO_NETWORK, *options)) as docker:
            yield docker
    finally:
        machine.close()


def test_docker_runs_containers(docker: Docker) -> None:
    """Output, exit codes, input, users, limits and what is missing, as with runc."""
    assert docker.ask("info", "-f", "{{.DefaultRuntime}}") == "windlass"
    assert docker.ask(*RUN, "--rm", IMAGE, "/bin/echo", "hello") == "hello"
    assert docker.run(*RUN, "--rm", "-i", IMAGE, "/bin/cat", data=b"sent").stdout == "sent"
    assert docker.run(*RUN, "--rm", "--user", "0:6", IMAGE, "/bin/sh", "-c", "exit 7").returncode == 7
    missing = docker.run(*RUN, "--rm", IMAGE, "/no/such")
    assert missing.returncode == 127 and "/no/such: no such file or directory" in missing.stderr
    unknown = docker.run(*RUN, "--rm", IMAGE, "nosuch")
    assert unknown.returncode == 127 and "executable file not found in $PATH" in unknown.stderr
    eater = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"
    assert docker.run(*RUN, "--rm", "-m", "20m", IMAGE, "/bin/sh", "-c", eater).returncode == 137


def test_docker_drives_a_running_container(docker: Docker) -> None:
    """Exec, pause, processes, statistics, limits, health, stop, start again."""
    health = ("--health-cmd", "true", "--health-interval", "1s")
    docker.ask(*RUN, "-d", "--name", "sleeper", *health, IMAGE, "/bin/sh", "-c", "echo begun; exec sleep 1000")
    assert docker.ask("exec", "-e", "A=b", "-w", "/bin", "sleeper", "/bin/sh", "-c", "echo $A $PWD") == "b /bin"
    assert docker.run("exec", "sleeper", "/bin/sh", "-c", "exit 3").returncode == 3
    eventually(lambda: docker.ask("inspect", "-f", "{{.State.Health.Status}}", "sleeper") == "healthy", 30)
    docker.ask("pause", "sleeper")
    assert "(Paused)" in docker.ask("ps", "--format", "{{.Status}}")
    docker.ask("unpause", "sleeper")
    assert "sleep 1000" in docker.ask("top", "sleeper")
    assert docker.ask("stats", "--no-stream", "--format", "{{.Name}}", "sleeper") == "sleeper"
    docker.ask("update", "-m", "50m", "--memory-swap", "100m", "sleeper")
    docker.ask("stop", "-t", "1", "sleeper")
    docker.ask("start", "sleeper")
    docker.ask("kill", "sleeper")
    assert docker.ask("logs", "sleeper") == "begun\nbegun"
    docker.ask("rm", "sleeper")


def test_docker_gives_a_terminal(docker: Docker) -> None:
    """`run -t` and `exec -t`, from a terminal of the client."""
    docker.ask(*RUN, "-d", "-t", "--name", "screen", IMAGE, "/bin/sleep", "1000")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(docker.command[0], [*docker.command, "exec", "-it", "screen", "/bin/sh", "-c", "read x; echo got $x"])
    seen = b""
    os.write(terminal, b"typed\r")
    while is_readable(terminal, 20):
        try:
            seen += os.read(terminal, 4096)
        except OSError:  # EIO: the client has ended
            break
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"got typed" in seen
    docker.ask("rm", "-f", "screen")
