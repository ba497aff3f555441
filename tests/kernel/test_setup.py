"""What the daemon does to its own process before plugins start, and what it tells systemd."""

from __future__ import annotations

import logging
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.errors import StartError
from windlass.process import setup as process

PREPARE = """
import os, sys
from pathlib import Path
from windlass.config.loading import Flags, read
from windlass.errors import StartError
from windlass.process import setup

draft = read(Path(sys.argv[1]))
try:
    lock = setup.prepare(draft.settle([]))
except StartError as error:
    sys.exit(str(error))
mask = os.umask(0)
score = Path("/proc/self/oom_score_adj").read_text().strip()
print(f"{mask:o}", os.environ.get("TMPDIR"), score, os.get_inheritable(lock))
"""

HOLD = """
import sys
from pathlib import Path
from windlass.process import setup

setup.hold(Path(sys.argv[1]))
print(flush=True)
sys.stdin.read()
"""


def prepare(folder: Path, more: str = "") -> subprocess.CompletedProcess[str]:
    """Prepare a process of its own by a file, whatever mask it was started with."""
    file = folder / "config.toml"
    file.write_text(f'version = 4\nroot = "{folder}/a/root"\nstate = "{folder}/a/state"\n{more}')
    command = [sys.executable, "-c", PREPARE, str(file)]
    return subprocess.run(command, umask=0o077, capture_output=True, text=True, timeout=60)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_directories_are_made_for_whom_they_are(tmp_path: Path) -> None:
    """Only root reads what persists; containers of other users pass through the state. Nothing else is set."""
    done = prepare(tmp_path)
    assert (mode(tmp_path / "a/root"), mode(tmp_path / "a/state")) == (0o700, 0o711)
    mask, temp, _, inheritable = done.stdout.split()
    assert (mask, temp, inheritable) == ("22", str(os.environ.get("TMPDIR")), "False"), done.stderr


def test_the_temporary_directory_and_the_oom_score_are_set(tmp_path: Path) -> None:
    """For the daemon and for what it executes."""
    done = prepare(tmp_path, f'temp = "{tmp_path}/temp"\noom_score = 321\n')
    assert done.stdout.split() == ["22", f"{tmp_path}/temp", "321", "False"], done.stderr
    assert mode(tmp_path / "temp") == 0o700


def test_a_directory_that_cannot_be_is_named_by_its_key_and_line(tmp_path: Path) -> None:
    """The operator finds the line that has to change."""
    (tmp_path / "temp").touch()
    done = prepare(tmp_path, f'temp = "{tmp_path}/temp"\n')
    assert (done.returncode, done.stderr) == (
        1,
        f"temp ({tmp_path}/config.toml:4): {tmp_path}/temp is not a directory; choose another\n",
    )


def test_a_root_whose_adoption_is_not_finished_is_refused(tmp_path: Path) -> None:
    """The records are not there yet, and garbage collection would remove what seems to belong to none."""
    unfinished = tmp_path / "a/root/adoption/unfinished"
    unfinished.parent.mkdir(parents=True)
    unfinished.touch()
    done = prepare(tmp_path)
    remedy = "finish it by windlassd adopt, or windlassd adopt --back"
    assert (done.returncode, done.stderr) == (1, f"what is in {tmp_path}/a/root was not all adopted; {remedy}\n")
    unfinished.rename(unfinished.with_name("done"))
    assert prepare(tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file", "is not a directory; choose another"),
        ("file/below", "cannot use .*/file/below: Not a directory; choose another"),
        ("x" * 300, "cannot use .*: File name too long; choose another"),
    ],
)
def test_what_can_be_no_directory_is_refused(tmp_path: Path, place: str, reason: str) -> None:
    """With the reason of the system, and nothing is made."""
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=f"^root: .*{reason}$"):
        process.make_directory(tmp_path / place, 0o700, "root")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_the_root_is_free_when_its_holder_lets_go(tmp_path: Path) -> None:
    """A daemon that is started while its predecessor stops waits for that."""
    holder = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(StartError, match="is in use by another windlassd; stop that one or choose --root"):
            process.hold(tmp_path, wait=0)
        first.stdin.close()
        os.close(process.hold(tmp_path, wait=60))


def test_a_score_that_needs_a_capability_says_what_stays(caplog: pytest.LogCaptureFixture) -> None:
    """That low needs CAP_SYS_RESOURCE, and the operator reads which score there is now."""

    class Refusing(type(Path())):  # type: ignore[misc] # the class of paths depends on the system
        def write_text(self, *_: object, **__: object) -> int:
            raise PermissionError(13, "Permission denied")

        def read_text(self, *_: object, **__: object) -> str:
            return "200\n"

    process.set_oom_score(-999, Refusing("/proc/self/oom_score_adj"))
    assert caplog.messages == ["oom_score -999 is not set, 200 stays: that low needs CAP_SYS_RESOURCE"]


def test_a_new_cpuset_gets_what_those_above_it_have(tmp_path: Path) -> None:
    """Version 1 makes it without processors and memory, and no process could join; one that has some keeps them."""
    cpuset = tmp_path / "cpuset"
    (cpuset / "a/b").mkdir(parents=True)
    for name, text in (("cpuset.cpus", "0-3\n"), ("cpuset.mems", "0\n")):
        (cpuset / name).write_text(text)
        for group in ("a", "a/b"):
            (cpuset / group / name).write_text("\n")
    (cpuset / "a/cpuset.cpus").write_text("1\n")

    process.join_cgroup("/a/b", tmp_path)

    assert [(cpuset / "a/b" / name).read_text() for name in ("cpuset.cpus", "cpuset.mems")] == ["1\n", "0\n"]
    assert (cpuset / "a/b/cgroup.procs").read_text() == "0"


def test_a_group_that_cannot_be_joined_is_named(tmp_path: Path) -> None:
    """With the key that asks for it: the daemon would run without the limits that were meant for it."""
    (tmp_path / "cgroup.controllers").touch()
    (tmp_path / "a").touch()
    with pytest.raises(StartError, match=r"^cannot join control group .*/a/b: File exists; see cgroup\.path$"):
        process.join_cgroup("a/b", tmp_path)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end of its socket, which is not bound yet."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(20)
        yield receiver


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_gets_what_it_asked_for(
    systemd: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    """At a path, or at an abstract name, which it writes with an @ (sd_notify(3))."""
    name = f"windlass-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    systemd.bind(f"\0{name}" if abstract else name)
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
    process.notify("READY=1")
    assert systemd.recv(100) == b"READY=1"


def test_without_systemd_nothing_is_sent_and_a_dead_one_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon serves in either case."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    process.notify("READY=1")
    assert caplog.records == []
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    process.notify("READY=1")
    [line] = caplog.records
    assert line.levelno == logging.WARNING
    assert "READY=1" in line.getMessage()
