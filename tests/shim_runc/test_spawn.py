"""How programs are executed: what they are given, where they work, and how all of one is killed."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from windlass_shim_runc.signals import SIGCHLD
from windlass_shim_runc.spawn import kill_all, spawn

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="posix_spawn of glibc or musl is used")

SHELL = "/bin/sh"


def output(script: str, directory: str = "/", environment: dict[str, str] | None = None) -> str:
    """Run a script and return what it prints."""
    reading, writing = os.pipe()
    above = fcntl.fcntl(writing, fcntl.F_DUPFD_CLOEXEC, 700)
    pid = spawn([SHELL, "-c", script], environment or {"PATH": os.defpath}, directory, {1: above})
    os.close(writing)
    os.close(above)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as file:
        return file.read()


def test_a_program_has_only_what_it_is_given() -> None:
    """Standard streams that are not given are /dev/null; ours stay ours."""
    assert output("readlink /proc/$$/fd/0 /proc/$$/fd/2") == "/dev/null\n/dev/null\n"
    assert not [fd for fd in output("ls /proc/$$/fd").split() if int(fd) >= 700]


def test_it_has_the_environment_that_is_named() -> None:
    assert output("echo $A-$HOME", environment={"A": "b c"}) == "b c-\n"


def test_it_works_in_its_directory(tmp_path: Path) -> None:
    """Or where we do, when that is gone."""
    assert output("pwd", str(tmp_path)) == f"{tmp_path}\n"
    assert output("pwd", str(tmp_path / "gone")) == f"{Path.cwd()}\n"


def test_it_leads_a_process_group() -> None:
    """A signal for ours is not for it."""
    pid, group = output("echo $$; cut -d' ' -f5 /proc/$$/stat").split()
    assert pid == group


def test_no_signal_is_ignored_or_blocked() -> None:
    """Whatever is so for us: it would stay so down to the container's processes."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [SIGCHLD])
    try:
        lines = output("grep -E '^Sig(Ign|Blk)' /proc/self/status").split()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [SIGCHLD])
        signal.signal(signal.SIGUSR1, before)
    assert [int(each, 16) for each in lines[1::2]] == [0, 0]


@pytest.mark.parametrize(
    ("program", "error"),
    [("/no/such/program", FileNotFoundError), ("no-such-program", FileNotFoundError), ("/etc", PermissionError)],
)
def test_what_cannot_be_executed_is_an_error_that_names_it(program: str, error: type[OSError]) -> None:
    with pytest.raises(error) as info:
        spawn([program], {"PATH": os.defpath}, "/", {})
    assert info.value.filename == program


def test_all_that_it_has_started_is_killed(tmp_path: Path) -> None:
    """Also what has a session of its own, as runc's init has."""
    script = f"setsid sleep 1000 & echo $! >{tmp_path}/pid; wait"
    pid = spawn([SHELL, "-c", script], {"PATH": os.defpath}, "/", {})
    deadline = time.monotonic() + 10
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child = int((tmp_path / "pid").read_text())
    kill_all(pid)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split(")")[1]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kill_all(pid)
