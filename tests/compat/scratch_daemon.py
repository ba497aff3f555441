"""A windlassd of our own for tests: scratch directories, a short socket path, Debian's ctr, and raw gRPC."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import groups
import grpc
import pytest

WINDLASSD = Path(sys.executable).with_name("windlassd")
NAMESPACE = "default"
METADATA = (("containerd-namespace", NAMESPACE),)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts and containers")
needs_ctr = pytest.mark.skipif(shutil.which("ctr") is None, reason="ctr is not installed; apt install containerd")
needs_runc = pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed; apt install runc")


def run_windlassd(arguments: Sequence[str], env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a daemon that is expected to end by itself; return its exit code and standard error."""
    done = subprocess.run(
        [WINDLASSD, *arguments], env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=30
    )
    return done.returncode, done.stderr


class ScratchDaemon:
    """A running windlassd."""

    def __init__(
        self, scratch: Path, root: Path | None = None, arguments: Sequence[str] = (), env: dict[str, str] | None = None
    ) -> None:
        self.scratch = scratch
        self.root = root or scratch / "root"
        self.state = scratch / "state"
        self.address = scratch / "w.sock"
        self.ttrpc = scratch / "w.sock.ttrpc"
        self.log = scratch / "log"
        self.program: list[str | Path] = [WINDLASSD]
        self._arguments = ["--root", self.root, "--state", self.state, "--address", self.address, *arguments]
        self._env = env or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it is ready."""
        groups.shared(NAMESPACE)
        notify = self.scratch / "notify"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer, self.log.open("ab") as log:
            peer.bind(str(notify))
            peer.settimeout(0.2)
            env = {**os.environ, **self._env, "NOTIFY_SOCKET": str(notify), "TMPDIR": str(self.scratch)}
            self._process = subprocess.Popen(
                [*self.program, *map(str, self._arguments)], env=env, stdout=log, stderr=log
            )
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                assert self._process.poll() is None, self.log.read_text()
                try:
                    if peer.recv(100) == b"READY=1":
                        return
                except TimeoutError:
                    pass
        raise AssertionError(f"not ready after 30 s: {self.log.read_text()}")

    def stop(self) -> int:
        """Stop, and return the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def close(self) -> None:
        """End it whatever its state, and unmount what is left below the scratch directory."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        for mount in reversed(mounts_below(self.scratch)):
            subprocess.run(["umount", "-l", mount], check=False)

    def ctr(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run Debian's ctr."""
        command = ["ctr", "--address", str(self.address), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout)

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """Yield a gRPC channel."""
        with grpc.insecure_channel(f"unix:{self.address}") as channel:
            yield channel

    def leftovers(self) -> list[str]:
        """Return what only running tasks, ingests and active snapshots leave behind."""
        found = [str(path) for path in self.state.glob("io.containerd.runtime.v2.task/*/*")]
        found += [str(path) for path in self.root.glob("io.containerd.runtime.v2.task/*/*")]
        found += [str(path) for path in self.root.glob("io.containerd.content.v1.content/ingest/*")]
        found += mounts_below(self.scratch, ours=self.root)
        found += [each for each in processes_of(self.scratch) if not each.startswith(f"{self.pid} ")]
        return found


def mounts_below(directory: Path, ours: Path | None = None) -> list[str]:
    """Return mount points below ``directory`` except ``ours``."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{directory}/") and point != str(ours)]


def processes_of(directory: Path) -> list[str]:
    """Return "pid command" of runc's and shims' processes that were started for ``directory``."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            cwd = os.readlink(entry / "cwd")
        except OSError:
            continue
        if cwd.startswith(f"{directory}/") or ("runc" in command and str(directory) in command):
            found.append(f"{entry.name} {command} in {cwd}")
    return found


def wait_until(condition: object, seconds: float = 10) -> bool:
    """Return whether ``condition()`` came true in time."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def open_sockets(pid: int) -> int:
    """Return how many sockets a process has open; its pools of files come and go on their own."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += link.readlink().name.startswith("socket:")
    return count


def distribution(directory: Path, name: str, entries: dict[str, str], source: str) -> None:
    """Put an installed distribution into ``directory``: entry points by URI, and one module of its name."""
    info = directory / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{uri} = {module}" for uri, module in entries.items()]
    (info / "entry_points.txt").write_text("[windlass.plugins]\n" + "\n".join(lines) + "\n")
    (directory / f"{name}.py").write_text(source)
