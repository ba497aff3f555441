"""The life of a container by `windlass`, against Debian's containerd and against windlassd."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compat.images import Archive, busybox_layer
from compat.windlass_machine import IMAGE, NEEDS, WINDLASS, Machine, read_until, running
from polling import is_readable

pytestmark = NEEDS
COUNT = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.1; done"


@pytest.fixture(scope="module", params=["containerd", "windlassd"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with running(request.param, tmp_path_factory.mktemp("m")) as machine:
        yield machine


@pytest.fixture(autouse=True)
def clean(machine: Machine) -> Iterator[None]:
    """Every test ends with no container, no mount and no file."""
    yield
    machine.remove_containers()
    assert machine.leftovers() == []


def ok(machine: Machine, *arguments: str) -> str:
    done = machine.windlass(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def state(machine: Machine, name: str) -> str:
    return ok(machine, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).strip()


def test_a_container_is_created_started_stopped_and_renamed(machine: Machine) -> None:
    """The log goes on over starts, and the name is free after it was changed."""
    assert ok(machine, "create", "--name", "box", IMAGE, "sh", "-c", "echo ready; exec sleep 1000") == "box\n"
    assert state(machine, "box") == "created 0"
    assert ok(machine, "start", "box") == "box\n"
    eventually(lambda: ok(machine, "logs", "box") == "ready\n")
    assert ok(machine, "stop", "-t", "0", "box") == "box\n"
    assert (state(machine, "box"), ok(machine, "wait", "box")) == ("exited 137", "137\n")
    ok(machine, "rename", "box", "old")
    second = ok(machine, "run", "-d", "--name", "box", IMAGE, "true").strip()
    assert second != "box"
    assert sorted(ok(machine, "ps", "-a", "--format", "{{.ID}} {{.Names}}").split("\n")[:2]) == sorted(
        [f"{second} box", "box old"]
    )
    ok(machine, "restart", "old")
    eventually(lambda: ok(machine, "logs", "-n", "5", "old") == "ready\nready\n")
    assert ok(machine, "ps", "--filter", "name=old", "--format", "{{.State}}") == "running\n"


def test_a_container_in_the_background_goes_by_itself(machine: Machine) -> None:
    ok(machine, "run", "-d", "--rm", "--name", "gone", IMAGE, "true")
    eventually(lambda: ok(machine, "ps", "-a", "-q") == "" and machine.leftovers() == [])


def test_a_log_is_followed_over_a_killed_daemon(machine: Machine) -> None:
    """No line is lost, and the end is seen."""
    ok(machine, "run", "-d", "--name", "box", IMAGE, "sh", "-c", COUNT)
    command = [*WINDLASS, "logs", "-f", "box"]
    with subprocess.Popen(command, env=machine.environment, stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        lines = [following.stdout.readline() for _ in range(5)]
        machine.process.kill()
        machine.process.wait()
        lines += [following.stdout.readline() for _ in range(5)]
        machine.start()
        ok(machine, "kill", "box")
        lines += following.stdout.readlines()
        assert following.wait(20) == 0
    assert lines == [f"line {number}\n".encode() for number in range(len(lines))]


def wait_for_prompt(terminal: int) -> None:
    """Type until a shell answers: what is typed before the client has taken the terminal over may be lost."""
    seen, deadline = b"", time.monotonic() + 60
    while b"# " not in seen:
        assert time.monotonic() < deadline, seen
        os.write(terminal, b"\r")
        if is_readable(terminal, 0.5):
            seen += os.read(terminal, 65536)


def test_a_terminal_is_left_and_found_again(machine: Machine) -> None:
    """By the keys, and when it goes away; the container does not notice."""
    for leave in ("keys", "hang up"):
        arguments = ["run", "-t", "-i", "--name", "box", IMAGE, "sh"] if leave == "keys" else ["attach", "box"]
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(WINDLASS[0], [*WINDLASS, *arguments], machine.environment)
        wait_for_prompt(terminal)
        if leave == "keys":
            os.write(terminal, b"\x10\x11")
            read_until(terminal, b"read escape sequence")
            assert os.waitpid(pid, 0)[1] == 0
        os.close(terminal)
        if leave != "keys":
            os.waitpid(pid, 0)
        assert state(machine, "box") == "running 0"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(WINDLASS[0], [*WINDLASS, "attach", "box"], machine.environment)
    wait_for_prompt(terminal)
    os.write(terminal, b"exit 4\r")
    while True:
        try:
            if not os.read(terminal, 4096):
                break
        except OSError:
            break
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    os.close(terminal)


def test_a_client_that_is_killed_leaves_its_container_running(machine: Machine) -> None:
    """With --rm the container goes when it ends all the same."""
    command = [*WINDLASS, "run", "--rm", "--name", "box", IMAGE, "sh", "-c", COUNT]
    with subprocess.Popen(command, env=machine.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    before = ok(machine, "logs", "box")
    eventually(lambda: len(ok(machine, "logs", "box")) > len(before))
    ok(machine, "kill", "box")
    eventually(lambda: ok(machine, "ps", "-a", "-q") == "")


def test_a_policy_restarts_until_somebody_stops_it(machine: Machine) -> None:
    """The daemon's monitor looks every ten seconds; its new task is logged and has a name like the first."""
    ok(machine, "run", "-d", "--name", "box", "--restart", "always", IMAGE, "sh", "-c", "echo up; sleep 1")
    eventually(lambda: ok(machine, "logs", "box").count("up") > 1, 50)
    ok(machine, "stop", "-t", "0", "box")
    count = ok(machine, "logs", "box").count("up")
    time.sleep(12)
    assert ok(machine, "logs", "box").count("up") == count
    assert state(machine, "box").startswith("exited")


def test_health(machine: Machine) -> None:
    """What the command says shows in ps and inspect."""
    options = ("--health-cmd", "test -e /tmp/ok", "--health-interval", "500ms", "--health-retries", "2")
    ok(machine, "run", "-d", "--name", "box", "--tmpfs", "/tmp", *options, IMAGE, "sleep", "1000")
    eventually(lambda: "(unhealthy)" in ok(machine, "ps"))
    ok(machine, "exec", "box", "sh", "-c", "echo > /tmp/ok")
    eventually(lambda: ok(machine, "inspect", "-f", "{{.State.Health.Status}}", "box") == "healthy\n")
    assert ok(machine, "ps", "-q", "--filter", "health=healthy") == "box\n"


def test_an_image_says_how_its_health_is_found_out(machine: Machine) -> None:
    """docker's HEALTHCHECK; what `run` says goes over it."""
    check = {"Test": ["CMD-SHELL", "test -e /tmp/ok"], "Interval": 300_000_000, "Retries": 1}
    name = "example.org/checked:1"
    archive = Archive(machine.directory / "checked.tar", name, [busybox_layer()], Healthcheck=check)
    ok(machine, "image", "import", str(archive.path))
    ok(machine, "run", "-d", "--name", "box", name, "sleep", "1000")
    eventually(lambda: "(unhealthy)" in ok(machine, "ps"))
    ok(machine, "exec", "box", "touch", "/tmp/ok")
    eventually(lambda: "(healthy)" in ok(machine, "ps"))
    ok(machine, "run", "-d", "--name", "unchecked", "--no-healthcheck", name, "sleep", "1000")
    assert "health" not in ok(machine, "ps", "--filter", "name=unchecked")


def test_options(machine: Machine, tmp_path: Path) -> None:
    """Variables from files and from us, labels from a file, groups, limits, parameters, and the file for the ID."""
    (tmp_path / "env").write_text("# comment\nA=1\nOURS\nNOT_THERE\n")
    (tmp_path / "labels").write_text("x=y\n")
    machine.environment["OURS"] = "from us"
    script = (
        "echo $A,$OURS,${NOT_THERE-none}; ulimit -n; cat /proc/sys/net/ipv4/ip_forward; id -G; df -k /dev/shm | tail -1"
    )
    ran = machine.run(
        "--name", "box", "--env-file", str(tmp_path / "env"), "-e", "A=2", "--label-file", str(tmp_path / "labels"),
        "--ulimit", "nofile=500:600", "--sysctl", "net.ipv4.ip_forward=1", "--group-add", "7", "--shm-size", "4m",
        "--cidfile", str(tmp_path / "id"), IMAGE, "sh", "-c", script,
    )  # fmt: skip
    lines = ran.stdout.decode().splitlines()
    assert lines[:3] == ["2,from us,none", "500", "1"], ran
    assert "7" in lines[3].split() and lines[-1].split()[1] == "4096"
    assert (tmp_path / "id").read_text() == "box"
    [document] = json.loads(ok(machine, "inspect", "box"))
    assert document["Config"]["Labels"]["x"] == "y"


def test_a_privileged_container_has_the_hosts_devices(machine: Machine) -> None:
    script = "ls /dev/kmsg; grep CapEff /proc/self/status"
    plain, free = (
        machine.run("--rm", IMAGE, "sh", "-c", script),
        machine.run("--rm", "--privileged", IMAGE, "sh", "-c", script),
    )
    assert b"/dev/kmsg" not in plain.stdout
    assert b"/dev/kmsg" in free.stdout and int(free.stdout.split()[-1], 16) > int(plain.stdout.split()[-1], 16)


def test_a_user_of_the_image_runs_a_process(machine: Machine) -> None:
    ok(machine, "run", "-d", "--name", "box", IMAGE, "sleep", "1000")
    assert ok(machine, "exec", "-u", "nobody", "box", "id", "-u") == "65534\n"
    assert b"not in the image's /etc/passwd" in machine.windlass("exec", "-u", "stranger", "box", "id").stderr


def test_a_socket_may_be_named_from_here(machine: Machine) -> None:
    done = subprocess.run(
        [*WINDLASS, "-a", "d.sock", "ps"], cwd=machine.directory, env=machine.environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr


def test_the_third_interrupt_leaves_what_is_attached(machine: Machine) -> None:
    ok(machine, "run", "-d", "--name", "box", IMAGE, "sh", "-c", f"trap '' INT; {COUNT}")
    with subprocess.Popen([*WINDLASS, "attach", "box"], env=machine.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        process.wait(20)
    assert state(machine, "box") == "running 0"
