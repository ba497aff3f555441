"""A host of systemd's: Debian's systemd as process 1 of namespaces of its own, over a copy of this machine's files.

It has control groups below a group of its own here, so nothing of this machine is in its reach, and all of it is gone
at the end.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from windlass_linux import cgroups

SYSTEMD = Path("/lib/systemd/systemd")
READY = 30.0
NAMESPACES = ["--pid", "--mount", "--cgroup", "--uts", "--ipc", "--net"]

TARGET = "[Unit]\nDescription=Nothing but systemd\nDefaultDependencies=no\nAllowIsolate=yes\n"

# Words: scratch directory, "1" for control groups of version 1 or "2", directories that stay the machine's own.
BOOT = """
set -e
scratch=$1 version=$2; shift 2
mount --make-rprivate /
mount -t tmpfs scratch "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
cd "$scratch/root"
for each in "$@"; do mkdir -p "./$each"; mount --rbind "$each" "./$each"; done
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs run run
if [ "$version" = 2 ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
    for each in $HIERARCHIES; do
        mkdir "sys/fs/cgroup/$each"
        case "$each" in
            unified) mount -t cgroup2 cgroup2 "sys/fs/cgroup/$each";;
            systemd) mount -t cgroup -o none,name=systemd cgroup "sys/fs/cgroup/$each";;
            *) mount -t cgroup -o "$each" cgroup "sys/fs/cgroup/$each";;
        esac
    done
fi
printf '%s' "$TARGET" > etc/systemd/system/windlass-test.target
unset NOTIFY_SOCKET
export container=windlass
pivot_root . mnt
umount -l mnt
exec /lib/systemd/systemd --system --log-target=null --show-status=0 --unit=windlass-test.target
"""

# Enters a group of each hierarchy, and then executes what follows. systemd removes groups that are empty.
INSIDE = """
import os, sys
count = int(sys.argv[1])
for place in sys.argv[2 : 2 + count]:
    os.makedirs(place, exist_ok=True)
    for name in ("cpuset.cpus", "cpuset.mems"):
        if os.path.exists(f"{place}/{name}"):
            with open(f"{place}/../{name}") as above, open(f"{place}/{name}", "w") as file:
                file.write(above.read())
    with open(f"{place}/cgroup.procs", "w") as file:
        file.write("0")
os.execvp(sys.argv[2 + count], sys.argv[2 + count :])
"""


def reason() -> str:
    """Return why systemd cannot run here, "" when it may."""
    if os.geteuid() != 0:
        return "systemd needs root"
    missing = [name for name in ("nsenter", "unshare", "systemctl") if shutil.which(name) is None]
    if not SYSTEMD.exists() or missing:
        return "systemd is not installed; apt-get install systemd"
    return ""


class SystemdHost:
    """One systemd that runs."""

    def __init__(self, directory: Path, version: int = 1, shared: tuple[str, ...] = ()) -> None:
        """``shared`` are directories of this machine that it sees as they are. Raises RuntimeError with why not."""
        self.version = version
        self.directory = directory
        name = f"windlass-systemd-{secrets.token_hex(4)}"
        self._groups = [f"{place}/{name}" for place, _, _ in cgroups.hierarchies()]
        self._scratch = directory / "scratch"
        self._scratch.mkdir()
        self._pid = 0
        try:
            self._process = self._begin([str(directory), *shared])
            self._wait(directory / "systemd.log")
        except BaseException:
            self.stop()
            raise

    def _begin(self, shared: list[str]) -> subprocess.Popen[bytes]:
        boot = ["unshare", *NAMESPACES, "--fork", "sh", "-c", BOOT, "sh", str(self._scratch), str(self.version)]
        inside = [sys.executable, "-c", INSIDE, str(len(self._groups)), *self._groups]
        names = [place.rpartition("/")[2] for place, _, _ in cgroups.hierarchies()]
        with (self._scratch.parent / "systemd.log").open("wb") as log:
            return subprocess.Popen(
                [*inside, *boot, *shared],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TARGET": TARGET, "HIERARCHIES": " ".join(names)},
            )

    def _wait(self, log: Path) -> None:
        deadline = time.monotonic() + READY
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"systemd does not run here: {log.read_text()[-300:]}")
            with contextlib.suppress(OSError, IndexError):
                self._pid = int(children.read_text().split()[0])
                if self.run("systemctl", "is-active", "windlass-test.target", timeout=5).stdout.strip() == "active":
                    return
            time.sleep(0.1)

    def command(self, *words: str) -> list[str]:
        """Return the command that runs ``words`` on this host."""
        client = [f"{group}/client" for group in self._groups]
        inside = [sys.executable, "-c", INSIDE, str(len(client)), *client]
        return [*inside, "nsenter", "-t", str(self._pid), "-m", "-p", "-C", "-n", "-i", "-u", "-r", "-w", *words]

    def run(self, *words: str, input: str = "", timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; a container that stays behind may keep its streams."""
        out, err = self._scratch.parent / "stdout", self._scratch.parent / "stderr"
        with out.open("w") as stdout, err.open("w") as stderr:
            done = subprocess.run(
                self.command(*words), input=input, stdout=stdout, stderr=stderr, text=True, timeout=timeout
            )
        return subprocess.CompletedProcess(words, done.returncode, out.read_text(), err.read_text())

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Return properties of a unit."""
        found = self.run("systemctl", "show", *(f"--property={name}" for name in names), "--", unit).stdout
        return dict(line.split("=", 1) for line in found.splitlines() if "=" in line)

    def group(self, controller: str, inner: str) -> Path:
        """Return where this machine sees a control group of the host's."""
        own = next(each for each in self._groups if controller in each.split("/")[4].split(","))
        return Path(own, inner)

    def left(self, name: str) -> list[str]:
        """Return the control groups of a unit that are there."""
        return [str(found) for group in self._groups for found in Path(group).rglob(name)]

    def hold(self) -> None:
        """Let systemd stand still: it answers nobody."""
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let systemd go on."""
        os.kill(self._pid, signal.SIGCONT)

    def stop(self) -> None:
        """End systemd and everything that it runs."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        if hasattr(self, "_process"):
            self._process.kill()
            self._process.wait()
        cgroups.remove_within(self._groups, 10.0)
