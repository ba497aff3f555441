"""windlassd as a plain user: started, used, killed and started again, by a user that only this test's mounts know."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

UID, FIRST = 64242, 700000
TREE = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
NEEDED = ("newuidmap", "newgidmap", "slirp4netns", "runc", "setpriv", "busybox")
MISSING = [name for name in NEEDED if not shutil.which(name)]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it becomes another user"),
    pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} not installed; apt install uidmap slirp4netns runc"),
]
# A mount namespace in which the user, its subordinate IDs and a /dev/net/tun for everybody are there.
BECOME = """
for name in passwd group subuid subgid; do mount --bind "$0/etc/$name" "/etc/$name"; done
mknod "$0/etc/tun.$$" c 10 200 && chmod 666 "$0/etc/tun.$$" && mount --bind "$0/etc/tun.$$" /dev/net/tun
exec setpriv --reuid %d --regid %d --clear-groups env -i HOME="$0/home" XDG_RUNTIME_DIR="$0/run" PATH="$1" "${@:2}"
"""


class User:
    """A plain user with a home and a daemon."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.log = place / "log"
        self.socket = place / "run/windlass/windlass.sock"
        self.launcher: subprocess.Popen[bytes] | None = None
        for name in ("etc", "home", "run"):
            (place / name).mkdir()
        for name in ("home", "run"):
            os.chown(place / name, UID, UID)
        (place / "etc/passwd").write_text(
            Path("/etc/passwd").read_text() + f"wanda:x:{UID}:{UID}::{place}/home:/bin/sh\n"
        )
        (place / "etc/group").write_text(Path("/etc/group").read_text() + f"wanda:x:{UID}:\n")
        self.allow(f"wanda:{FIRST}:65536\n")

    def allow(self, text: str) -> None:
        """Write both files of subordinate IDs."""
        for name in ("subuid", "subgid"):
            (self.place / "etc" / name).write_text(text)

    def command(self, *arguments: object) -> list[str]:
        become = ["unshare", "-m", "--propagation", "private", "bash", "-ec", BECOME % (UID, UID)]
        return [*become, str(self.place), f"{PROGRAMS}:/usr/bin:/bin", *map(str, arguments)]

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=60, cwd=self.place)

    def windlass(self, *arguments: object) -> str:
        done = self.run("windlass", *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}\n{self.log.read_text()[-3000:]}"
        return done.stdout

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.launcher = subprocess.Popen(
                self.command("windlassd-rootless"), stdout=log, stderr=log, cwd=self.place, start_new_session=True
            )
        self.eventually(lambda: self.run("windlass", "version").returncode == 0 and self.pids("windlassd "))

    def pids(self, word: str = "") -> list[int]:
        """Return the user's processes, those of containers included, whose command line has a word."""
        found = []
        for directory in Path("/proc").iterdir():
            if directory.name.isdigit():
                try:
                    line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    owner = directory.stat().st_uid
                except OSError:
                    continue
                if (owner == UID or FIRST <= owner < FIRST + 65536) and line and word in line:
                    found.append(int(directory.name))
        return found

    def eventually(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert self.launcher is None or self.launcher.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal the launcher; return its exit code once all processes are gone."""
        assert self.launcher is not None
        self.launcher.send_signal(number)
        code = self.launcher.wait(60)
        self.launcher = None
        self.eventually(lambda: not self.pids())
        return code


@pytest.fixture
def user() -> Iterator[User]:
    place = Path(tempfile.mkdtemp(prefix="rootless-", dir="/tmp"))
    place.chmod(0o755)
    made = User(place)
    if made.run("windlassd-rootless", "--version").returncode:
        shutil.rmtree(place)
        pytest.skip(f"{PROGRAMS} is not open to other users")
    image = place / "image.tar"
    script = TREE / "scripts/demo_image.py"
    subprocess.run([sys.executable, script, image, "demo:1", shutil.which("busybox") or ""], check=True)
    image.chmod(0o644)
    try:
        yield made
    finally:
        if made.launcher is not None:
            made.launcher.kill()
            made.launcher.wait()
        for pid in made.pids():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(place)


def test_a_plain_user_runs_containers(user: User) -> None:
    """Root inside is the user outside; what a rootless daemon cannot do is refused in one line."""
    user.start()
    user.windlass("load", "-i", user.place / "image.tar")
    assert user.windlass("run", "--rm", "--network", "none", "demo:1", "id", "-u").strip() == "0"
    maps = user.windlass("run", "--rm", "--network", "host", "demo:1", "cat", "/proc/self/uid_map").split()
    assert maps == ["0", str(UID), "1", "1", str(FIRST), "65536"]
    user.windlass("run", "-d", "--name", "a", "--network", "none", "demo:1", "sleep", "1000")
    assert user.windlass("exec", "a", "echo", "hello") == "hello\n"
    limited = user.run("windlass", "run", "--rm", "--network", "none", "-m", "64m", "demo:1", "true")
    assert (limited.returncode, "cannot set limits (memory)" in limited.stderr) == (125, True)
    published = user.run("windlass", "run", "--rm", "-p", "8080:80", "demo:1", "true")
    assert (published.returncode, "ports" in published.stderr) == (125, True), published.stderr
    second = user.run("windlassd-rootless")
    assert (second.returncode, "runs already" in second.stderr) == (1, True)
    # a daemon that is killed is started again, and the container goes on
    (daemon,) = user.pids("bin/windlassd ")
    os.kill(daemon, signal.SIGKILL)
    user.eventually(lambda: user.run("windlass", "exec", "a", "true").returncode == 0)
    user.windlass("rm", "-f", "a")
    assert user.end() == 0


@pytest.mark.parametrize("part", ["launcher", "slirp4netns"])
def test_nothing_is_left_of_a_killed_part(user: User, part: str) -> None:
    """Whichever process is killed, the others and the containers end, and the next start works."""
    user.start()
    user.windlass("load", "-i", user.place / "image.tar")
    user.windlass("run", "-d", "--name", "a", "--network", "none", "demo:1", "sleep", "1000")
    if part == "launcher":
        assert user.end(signal.SIGKILL) == -signal.SIGKILL
    else:
        os.kill(user.pids("slirp4netns --configure")[0], signal.SIGKILL)
        assert user.launcher is not None
        assert user.launcher.wait(60) == 1
        user.launcher = None
        user.eventually(lambda: not user.pids())
    user.start()
    user.windlass("rm", "-f", "a")
    assert user.windlass("run", "--rm", "--network", "none", "demo:1", "echo", "again") == "again\n"
    assert user.end() == 0


def test_what_is_missing_is_said(user: User) -> None:
    """Without subordinate IDs or XDG_RUNTIME_DIR there is one line with the remedy."""
    user.allow("other:100000:65536\n")
    done = user.run("windlassd-rootless")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no range for user wanda; as root: usermod --add-subuids" in done.stderr
    user.allow(f"wanda:{FIRST}:65536\n")
    done = user.run("env", "-u", "XDG_RUNTIME_DIR", "windlassd-rootless")
    assert (done.returncode, "XDG_RUNTIME_DIR is not set" in done.stderr) == (1, True)
