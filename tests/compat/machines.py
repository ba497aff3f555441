"""Daemons in scratch directories for Debian's `ctr`: Windlass and containerd, alike to the tests."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import groups

from windlass_linux import cgroups

WINDLASSD = "import sys; from windlass.process.cli import main; sys.exit(main())"
READY_TIMEOUT = 120.0
STOP_TIMEOUT = 20.0
CALL_TIMEOUT = 60.0
RUNC_STATE = Path("/run/containerd/runc")

MARK = "WINDLASS_TEST_MACHINE"
"""Set in the environment of a machine's daemon, and so of what it forks, to the machine's namespace."""

Result = subprocess.CompletedProcess[str]


def oci_runtime(name: str = os.environ.get("WINDLASS_TEST_RUNTIME", "")) -> str:
    """Return lines of configuration for an OCI runtime: that of the environment, for all tests once more, by hand."""
    return f'[plugins."io.windlass.shim.v1.runc"]\noci_runtime = "{name}"' if name else ""


def eventually(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Return once ``condition()`` holds; fail when it does not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


class Machine:
    """A daemon and the `ctr` that speaks to it, in a namespace that no other run has."""

    def __init__(self, kind: str, directory: Path, root: Path | None = None) -> None:
        self.kind = kind
        self.directory = directory
        self.namespace = groups.parent(f"ctr-{secrets.token_hex(4)}")
        self.root = root or directory / "root"
        self.state = directory / "state"
        self.address = str(directory / "d.sock")
        self.log = directory / "log"
        self.environment: dict[str, str] = {}
        """What the daemon gets besides the test's own environment."""
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        config = directory / "config.toml"
        lines = [
            "version = 2",
            f'root = "{self.root}"',
            f'state = "{self.state}"',
            f'[grpc]\naddress = "{self.address}"',
            f'[ttrpc]\naddress = "{self.address}.ttrpc"',
        ]
        if kind == "containerd":
            # The cri plugin needs a network set up; opt would make /opt/containerd.
            lines.insert(3, 'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]')
            self._command = ["containerd", "-c", str(config)]
        else:
            self._command = [sys.executable, "-c", WINDLASSD, "-c", str(config)]
            lines.append(oci_runtime())
        config.write_text("\n".join(lines) + "\n")

    def configure(self, more: str) -> None:
        """Add lines to the configuration, which the next start reads."""
        with (self.directory / "config.toml").open("a") as file:
            file.write(more + "\n")

    @property
    def pid(self) -> int:
        """The daemon's process."""
        assert self._process is not None
        return self._process.pid

    def enter(self, *words: str) -> None:
        """Put words before the daemon's command, such as `nsenter`'s."""
        self._command = [*words, *self._command]

    def begin(self) -> None:
        """Execute the daemon."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env={**os.environ, MARK: self.namespace, **self.environment}
            )

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        self.begin()
        assert self._process is not None
        deadline = time.monotonic() + READY_TIMEOUT
        while not Path(self.address).exists() or self.try_ctr("version").returncode:
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def ended(self) -> int | None:
        """Return the exit code of a daemon that has ended, None of one that runs."""
        assert self._process is not None
        return self._process.poll()

    def kill(self) -> None:
        """End the daemon as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        Path(self.address).unlink(missing_ok=True)

    def stop(self) -> None:
        """End the daemon as an operator would."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise

    def new_id(self) -> str:
        """Return an id that no container, snapshot or lease of this machine has yet."""
        self._count += 1
        return f"box{self._count}"

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that speaks to this daemon."""
        return ["ctr", "--address", self.address, "--namespace", self.namespace, *arguments]

    def try_ctr(self, *arguments: str, data: bytes | None = None, timeout: float = CALL_TIMEOUT) -> Result:
        """Run ctr to its end, however that is; standard input is ``data``."""
        done = subprocess.run(self.command(*arguments), input=data or b"", capture_output=True, timeout=timeout)
        out, error = (each.decode("utf-8", "backslashreplace") for each in (done.stdout, done.stderr))
        return Result(done.args, done.returncode, out, error)

    def ctr(self, *arguments: str, data: bytes | None = None, timeout: float = CALL_TIMEOUT) -> str:
        """Run ctr, which must succeed, and return what it prints."""
        done = self.try_ctr(*arguments, data=data, timeout=timeout)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr or done.stdout}"
        return done.stdout

    def rows(self, *arguments: str) -> dict[str, list[str]]:
        """Run a command that prints a table; return its lines without the heading, as words by their first word."""
        return {words[0]: words for words in map(str.split, self.ctr(*arguments).splitlines()[1:]) if words}

    @contextlib.contextmanager
    def background(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run ctr beside the test, with pipes for its streams; it is gone afterwards."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(self.command(*arguments), stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def collect_garbage(self) -> None:
        """Return when what nothing refers to is gone; until the next deletion nothing more is collected."""
        self.ctr("leases", "create", "--id", "sweep")
        self.ctr("leases", "rm", "--sync", "sweep")

    def status(self, container: str) -> str:
        """Return what `tasks ls` says of a task, "" when there is none."""
        return self.rows("tasks", "ls").get(container, ["", "", ""])[2]

    def blob(self, digest: str) -> Path:
        """Return where a blob is on disk, if it is."""
        return self.root / "io.containerd.content.v1.content/blobs" / digest.replace(":", "/")

    def snapshot_directories(self, snapshotter: str = "overlayfs") -> set[str]:
        """Return the snapshotter's directories on disk, committed or not."""
        directory = self.root / f"io.containerd.snapshotter.v1.{snapshotter}/snapshots"
        return {each.name for each in directory.iterdir()} if directory.is_dir() else set()

    def remove(self, container: str) -> None:
        """Remove a container and its task, whatever their state."""
        if container in self.ctr("tasks", "ls", "-q").split():
            self.try_ctr("tasks", "kill", "-s", "SIGKILL", container)
            eventually(lambda: self.status(container) in ("STOPPED", ""))
            self.try_ctr("tasks", "rm", "-f", container)
        self.try_ctr("containers", "rm", container)

    def close(self) -> None:
        """Remove all containers, stop the daemon, and fail when anything of it is left on the machine."""
        failure: Exception | None = None
        try:
            for container in self.ctr("containers", "ls", "-q").split():
                self.remove(container)
            self.stop()
            eventually(lambda: not self.leftovers())
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            failure = error
        left = self.leftovers()
        self._sweep()
        shutil.rmtree(self.directory, ignore_errors=True)
        assert not left, left
        if failure is not None:
            raise failure

    def leftovers(self) -> list[str]:
        """Return mounts, processes and cgroups of this machine that outlive its daemon."""
        return [*self.mounts(), *(f"process {each}" for each in self.processes()), *map(str, self.cgroups())]

    def mounts(self) -> list[str]:
        """Return where something is mounted below the machine's directory."""
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return [point for point in points if point.startswith(f"{self.directory}/")]

    def processes(self) -> Iterator[int]:
        """Yield the processes that name the machine's directory, or are in its cgroups."""
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                told = (entry / "cmdline").read_bytes() + os.readlink(entry / "cwd").encode()
                cgroups = (entry / "cgroup").read_bytes()
                ours = f"{self.directory}/".encode() in told or f"/{self.namespace}/".encode() in cgroups
                if ours and int(entry.name) != os.getpid():
                    yield int(entry.name)

    def cgroups(self) -> list[Path]:
        """Return the control groups of its containers."""
        hierarchies = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*")]
        return [child for each in hierarchies for child in (each / self.namespace).glob("*/")]

    def _sweep(self) -> None:
        """Remove what must not stay on the machine even when the test has failed."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for point in reversed(self.mounts()):
            subprocess.run(["umount", "-l", point], check=False)
        cgroups.remove_within([f"{place}/{self.namespace}" for place, _, _ in cgroups.hierarchies()], STOP_TIMEOUT)
        # Where Debian's shim has runc keep its state.
        with contextlib.suppress(OSError):
            (RUNC_STATE / self.namespace).rmdir()
