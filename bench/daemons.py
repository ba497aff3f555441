"""Two private daemons side by side, Windlass and Debian's containerd, and everything of theirs cleaned up.

Each has a scratch directory and a namespace of its own, whose name no other
process has in its arguments: that is how shims are found and cgroups removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import grpc
from google.protobuf.empty_pb2 import Empty

from windlass_api.containerd.services.version.v1 import version_pb2_grpc

READY_TIMEOUT = 90.0
COMMAND_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0
BATCH = 20
MNT_DETACH = 2

IMAGE = "example.org/bench:1"
DEMO_IMAGE = Path(__file__).parent.parent / "scripts" / "demo_image.py"

CONTAINERD_CONFIG = """\
version = 2
root = "{scratch}/root"
state = "{scratch}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{address}"
[plugins."io.containerd.internal.v1.opt"]
path = "{scratch}/opt"
"""


class Daemon:
    """A daemon that runs until `stop`; ``ready`` and ``answers`` are seconds from its execution."""

    def __init__(
        self, name: str, argv: Sequence[str], scratch: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.scratch = scratch
        self.address = str(scratch / "d.sock")
        self.namespace = f"bench-{name}-{os.getpid()}"
        self._argv = argv
        self._environment = {**os.environ, "NOTIFY_SOCKET": str(scratch / "notify"), **(environment or {})}
        self.start()

    def start(self, wait: bool = True) -> None:
        """Execute the daemon and wait until it is ready, or without ``wait`` for its first answer only."""
        where = self.scratch / "notify"
        where.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, (self.scratch / "log").open("ab") as log:
            notify.bind(str(where))
            notify.settimeout(READY_TIMEOUT)
            self.began = time.perf_counter()
            self.process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )
            self.answers = _first_answer(self.address) - self.began
            while wait and b"READY=1" not in notify.recv(4096):
                pass
            self.ready = time.perf_counter() - self.began

    def crash(self) -> None:
        """End the daemon by `kill -9`."""
        self.process.kill()
        self.process.wait()
        Path(self.address).unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        """The daemon's process."""
        return self.process.pid

    def ctr(self, *arguments: str) -> list[str]:
        """Return the command that runs Debian's ctr against this daemon."""
        return ["ctr", "--address", self.address, "--namespace", self.namespace, *arguments]

    def run(self, *arguments: str) -> str:
        """Run ctr and return what it prints."""
        done = subprocess.run(self.ctr(*arguments), capture_output=True, text=True, timeout=COMMAND_TIMEOUT)
        if done.returncode:
            raise RuntimeError(f"{self.name}: ctr {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def shims(self) -> list[int]:
        """Return the shims of this daemon's namespace."""
        return find_processes(self.namespace)

    def stop(self) -> None:
        """End containers, daemon, mounts and cgroups, whatever state they are in."""
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            for kind, flags in (("tasks", ["--force"]), ("containers", [])):
                ids = self.run(kind, "ls", "-q").split()
                for at in range(0, len(ids), BATCH):
                    self.run(kind, "rm", *flags, *ids[at : at + BATCH])
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in self.shims():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        remove_cgroups(self.namespace)
        shutil.rmtree(f"/run/containerd/runc/{self.namespace}", ignore_errors=True)


def windlassd(scratch: Path, environment: Mapping[str, str] | None = None) -> Daemon:
    """Start the windlassd that belongs to this Python, on its defaults."""
    program = str(Path(sys.executable).parent / "windlassd")
    (scratch / "config.toml").touch()
    paths = ["--root", str(scratch / "root"), "--state", str(scratch / "state"), "--address", str(scratch / "d.sock")]
    return Daemon("windlass", [program, "-c", str(scratch / "config.toml"), *paths], scratch, environment)


def windlassd_own(scratch: Path) -> Daemon:
    """Start the same with its own OCI runtime instead of runc."""
    program = str(Path(sys.executable).parent / "windlassd")
    (scratch / "config.toml").write_text('[plugins."io.windlass.shim.v1.runc"]\noci_runtime = "windlass-oci"\n')
    paths = ["--root", str(scratch / "root"), "--state", str(scratch / "state"), "--address", str(scratch / "d.sock")]
    return Daemon("windlass-oci", [program, "-c", str(scratch / "config.toml"), *paths], scratch)


def containerd(scratch: Path, environment: Mapping[str, str] | None = None) -> Daemon:
    """Start Debian's containerd without CRI, which nothing here uses."""
    config = scratch / "config.toml"
    config.write_text(CONTAINERD_CONFIG.format(scratch=scratch, address=scratch / "d.sock"))
    return Daemon("containerd", ["containerd", "--config", str(config)], scratch, environment)


@contextlib.contextmanager
def both(scratch: Path, kinds: Sequence[Callable[[Path], Daemon]] = (windlassd, containerd)) -> Iterator[list[Daemon]]:
    """Run daemons with the same image imported; afterwards nothing of them is left."""
    with contextlib.ExitStack() as stack:
        stack.callback(remove_tree, scratch)
        archive = scratch / "image.tar"
        subprocess.run([sys.executable, str(DEMO_IMAGE), str(archive), IMAGE], check=True)
        daemons = []
        for number, start in enumerate(kinds):
            place = scratch / str(number)
            place.mkdir()
            daemon = start(place)
            stack.callback(daemon.stop)
            daemon.run("images", "import", str(archive))
            daemons.append(daemon)
        yield daemons


def find_processes(argument: str) -> list[int]:
    """Return the processes that have a text in their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if argument.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def remove_cgroups(name: str) -> None:
    """Remove a namespace's cgroups, which with either daemon are the client's to remove."""
    for pattern in (f"*/{name}", name):
        for path in Path("/sys/fs/cgroup").glob(pattern):
            for child in sorted(path.rglob("*/"), reverse=True):
                with contextlib.suppress(OSError):
                    child.rmdir()
            with contextlib.suppress(OSError):
                path.rmdir()


def remove_tree(directory: Path) -> None:
    """Unmount what is mounted below a directory, then delete it without crossing into another file system."""
    libc = ctypes.CDLL(None, use_errno=True)
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        place = line.split()[4]
        if place.startswith(f"{directory}/"):
            libc.umount2(place.encode(), MNT_DETACH)
    subprocess.run(["rm", "-rf", "--one-file-system", str(directory)], check=True)


def _first_answer(address: str) -> float:
    """Return when the daemon first answered Version."""
    end = time.perf_counter() + READY_TIMEOUT
    while True:
        with socket.socket(socket.AF_UNIX) as peer:
            try:
                peer.connect(address)
                break
            except OSError:
                if time.perf_counter() > end:
                    raise TimeoutError(f"no process listens on {address} after {READY_TIMEOUT:.0f} s") from None
        time.sleep(0.001)
    # A made-up authority: gRPC would send the percent-encoded path, which is as good.
    with grpc.insecure_channel(f"unix:{address}") as channel:
        version_pb2_grpc.VersionStub(channel).Version(Empty(), wait_for_ready=True, timeout=READY_TIMEOUT)
    return time.perf_counter()
