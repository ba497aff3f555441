"""Debian's dockerd on a daemon that it did not start: it keeps images itself, and runs containers by the Tasks API."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from compat.conftest import require_criu, require_foreign_tools
from compat.machines import Machine, Result, eventually

from windlass_conformance.boxes import BUSYBOX

UNPACKED = Path(sys.prefix) / "docker"
"""Where scripts/test unpacks Debian's package: installing it would start a dockerd on this machine."""
IMAGE = "busy:1"
APPLETS = ("sh", "cat", "echo", "sleep", "true", "ps")
TRACES = (Path("/etc/docker/key.json"), Path("/etc/docker"), Path("/run/docker/plugins"), Path("/run/docker"))
"""What dockerd makes whatever it is told."""
NO_NETWORK = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")


def program(name: str) -> str:
    """Return the path of one of docker.io's programs; skip where it is not there."""
    places = (UNPACKED / "usr/sbin" / name, UNPACKED / "usr/bin" / name)
    found = next((str(path) for path in places if path.exists()), None) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not there; scripts/test unpacks it, or apt install docker.io")
    return found


class Docker:
    """A dockerd on a machine's containerd, without networks unless it is told otherwise."""

    def __init__(self, machine: Machine, prefix: Sequence[str] = (), network: Sequence[str] = NO_NETWORK) -> None:
        """``prefix`` are words before the command; ``network`` are options."""
        self._machine = machine
        self._socket = machine.directory / "docker.sock"
        self.log = machine.directory / "docker.log"
        self._client = program("docker")
        self.directory = directory = machine.directory
        # libnetwork's socket in there has to fit into an address.
        self._exec_root = tempfile.mkdtemp(prefix="windlass-dk-")
        argv = [program("dockerd"), "--containerd", machine.address, "-H", f"unix://{self._socket}"]
        argv += ["--data-root", f"{directory}/docker", "--exec-root", self._exec_root]
        (directory / "docker.json").write_text("{}")
        argv += ["--config-file", f"{directory}/docker.json", "--pidfile", f"{directory}/docker.pid"]
        argv += ["--containerd-namespace", machine.namespace, "--cgroup-parent", f"/{machine.namespace}"]
        argv = [*prefix, *argv, *network]
        # Checkpoints are an experiment of docker's, for ten years.
        argv += ["--storage-driver", "vfs", "--experimental"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)

    def wait(self) -> None:
        """Return when it answers."""
        eventually(lambda: self._process.poll() is not None or self.run("version").returncode == 0, 30)
        assert self._process.poll() is None, self.log.read_text()[-2000:]

    @property
    def command(self) -> list[str]:
        """The words that begin each command of the client."""
        return [self._client, "-H", f"unix://{self._socket}"]

    def run(self, *arguments: str, data: bytes = b"") -> Result:
        """Run a command of the client to its end."""
        command = [*self.command, *arguments]
        done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
        return Result(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    def ask(self, *arguments: str) -> str:
        """Run a command that must succeed, and return what it prints."""
        done = self.run(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout.strip()

    def close(self) -> None:
        """End it, and its containers before."""
        if self._process.poll() is None:
            for container in self.run("ps", "-aq").stdout.split():
                self.run("rm", "-f", container)
            self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # It binds its root onto itself, and does not always take that back.
        subprocess.run(["umount", "-l", f"{self._machine.directory}/docker"], capture_output=True, check=False)
        for place in sorted(Path(self._exec_root).glob("netns/*")):
            subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)
        shutil.rmtree(self._exec_root, ignore_errors=True)


@contextlib.contextmanager
def dockerd(machine: Machine, options: Sequence[str] = NO_NETWORK) -> Iterator[Docker]:
    """Yield a dockerd on a machine that runs, with an image; all that it makes elsewhere is gone afterwards."""
    program("dockerd")
    new = [path for path in TRACES if not path.exists()]
    docker = Docker(machine, network=options)
    try:
        docker.wait()
        done = docker.run("import", "-", IMAGE, data=root())
        assert done.returncode == 0, done.stderr
        yield docker
    finally:
        docker.close()
        for path in new:
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()


@pytest.fixture(params=["windlass", "containerd"])
def docker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """Docker on each of the two."""
    require_foreign_tools()
    program("dockerd")
    machine = Machine(request.param, tmp_path_factory.mktemp("dk"))
    try:
        machine.start()
        with dockerd(machine) as docker:
            yield docker
    finally:
        machine.close()


def root() -> bytes:
    """Return a root filesystem with a shell as tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(BUSYBOX, "bin/busybox")
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return out.getvalue()


RUN = ("run", "--network", "none")


def test_docker_runs_containers(docker: Docker) -> None:
    """Output, input, exit codes, what is missing, and what was killed for its memory."""
    assert docker.ask(*RUN, "--rm", IMAGE, "/bin/echo", "hello") == "hello"
    assert docker.run(*RUN, "--rm", "-i", IMAGE, "/bin/cat", data=b"sent").stdout == "sent"
    assert docker.run(*RUN, "--rm", IMAGE, "/bin/sh", "-c", "exit 7").returncode == 7
    missing = docker.run(*RUN, "--rm", IMAGE, "/no/such")
    assert missing.returncode == 127 and "/no/such: no such file or directory" in missing.stderr
    eater = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"
    assert docker.run(*RUN, "--name", "eater", "-m", "20m", IMAGE, "/bin/sh", "-c", eater).returncode == 137
    assert docker.ask("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "eater") == "true 137"
    docker.ask("rm", "eater")


def test_docker_drives_a_running_container(docker: Docker) -> None:
    """From exec and statistics to stop, start again and kill."""
    docker.ask(*RUN, "-d", "--name", "sleeper", IMAGE, "/bin/sh", "-c", "echo begun; exec sleep 1000")
    assert docker.ask("exec", "sleeper", "/bin/echo", "beside") == "beside"
    assert docker.run("exec", "sleeper", "/bin/sh", "-c", "exit 3").returncode == 3
    docker.ask("pause", "sleeper")
    assert "(Paused)" in docker.ask("ps", "--format", "{{.Status}}")
    docker.ask("unpause", "sleeper")
    assert "sleep 1000" in docker.ask("top", "sleeper")
    # Its dockerd ends where a message of the metrics is missing.
    assert docker.ask("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "sleeper") == "sleeper 1"
    docker.ask("update", "-m", "50m", "--memory-swap", "100m", "sleeper")
    docker.ask("stop", "-t", "1", "sleeper")
    assert docker.ask("ps", "-a", "--format", "{{.Status}}").startswith("Exited (137)")
    docker.ask("start", "sleeper")
    docker.ask("kill", "sleeper")
    assert docker.ask("logs", "sleeper") == "begun\nbegun"
    docker.ask("rm", "sleeper")


def test_docker_restarts_and_looks_after_health(docker: Docker) -> None:
    """Both need the events of tasks and of execs."""
    docker.ask(*RUN, "-d", "--name", "again", "--restart", "always", IMAGE, "/bin/sh", "-c", "exit 1")
    health = ("--health-cmd", "true", "--health-interval", "1s")
    docker.ask(*RUN, "-d", "--name", "well", *health, IMAGE, "/bin/sleep", "1000")
    eventually(lambda: int(docker.ask("inspect", "-f", "{{.RestartCount}}", "again")) >= 2, 20)
    eventually(lambda: docker.ask("inspect", "-f", "{{.State.Health.Status}}", "well") == "healthy", 20)
    docker.ask("rm", "-f", "again", "well")


def test_a_container_of_docker_outlives_its_containerd(docker: Docker) -> None:
    """dockerd connects again, and goes on with it."""
    machine = docker._machine
    docker.ask(*RUN, "-d", "--name", "sleeper", IMAGE, "/bin/sleep", "1000")
    before = docker.ask("inspect", "-f", "{{.State.Pid}}", "sleeper")
    machine.kill()
    machine.start()
    deadline = time.monotonic() + 30
    while docker.run("exec", "sleeper", "/bin/true").returncode:
        assert time.monotonic() < deadline, docker.log.read_text()[-2000:]
        time.sleep(0.2)
    assert docker.ask("inspect", "-f", "{{.State.Pid}} {{.State.Running}}", "sleeper") == f"{before} true"
    docker.ask("stop", "-t", "1", "sleeper")
    docker.ask("rm", "sleeper")


@pytest.mark.parametrize("docker", ["windlass"], indirect=True)
def test_a_container_goes_on_from_its_checkpoint(docker: Docker) -> None:
    """`docker start --checkpoint`; one that cannot be restored says why and waits for nobody, and starts anew."""
    require_criu("criu")
    counting = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done"
    docker.ask(*RUN, "-d", "--security-opt", "seccomp=unconfined", "--name", "box", IMAGE, "/bin/sh", "-c", counting)

    def said() -> int:
        return int(docker.ask("logs", "--tail", "1", "box") or 0)

    eventually(lambda: said() > 20)
    docker.ask("checkpoint", "create", "box", "saved")
    reached = said()

    docker.ask("start", "--checkpoint", "saved", "box")

    eventually(lambda: said() > reached)
    docker.ask("kill", "box")
    for image in docker.directory.glob("docker/containers/*/checkpoints/saved/*.img"):
        image.unlink()
    done = docker.run("start", "--checkpoint", "saved", "box")
    assert done.returncode == 1
    assert "restore failed" in done.stderr and "criu said" in done.stderr
    docker.ask("start", "box")
    docker.ask("rm", "-f", "box")
