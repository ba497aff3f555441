"""`windlassd adopt` with pods: Debian's containerd is taken over with its pods, logs and files; no line is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from compat.cri_daemon import SLEEP, CriDaemon, require_cri_tools
from compat.images import Archive, busybox_layer
from compat.machines import eventually
from compat.scratch_daemon import WINDLASSD
from compat.takeovers import NEWER

from windlass_api.runtime.v1 import api_pb2 as cri

pytestmark = pytest.mark.root

PAUSE = "docker.io/library/pause:1"
HANDLERS = """[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
sandboxer = "podsandbox"
"""
PINNED = f'[plugins."io.containerd.cri.v1.images".pinned_images]\nsandbox = "{PAUSE}"\n'
DEBIANS = f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
"""
NEWERS = f"""version = 3
{PINNED}
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
"""
COUNTING = ("/bin/sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done")


class CriContainerd(CriDaemon):
    """A containerd with CRI."""

    def __init__(self, scratch: Path, program: str, text: str) -> None:
        """``text`` is its configuration."""
        scratch.mkdir()
        super().__init__(scratch)
        self.program = ["nsenter", f"--net={self.host}", program]
        self._env = {"PATH": f"{Path(program).parent}:{os.environ['PATH']}"}
        (scratch / "config.toml").write_text(text)


def places(scratch: Path) -> Path:
    scratch.mkdir()
    return scratch


@pytest.fixture(params=["debian", "newer"])
def daemons(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[CriDaemon, CriDaemon]]:
    """A containerd that runs, and a windlassd that does not yet."""
    require_cri_tools()
    place = os.environ.get(NEWER, "")
    if request.param == "newer" and not place:
        pytest.skip(f"{NEWER} does not name a directory with containerd 2.x")
    program, text = (f"{place}/containerd", NEWERS) if request.param == "newer" else ("/usr/bin/containerd", DEBIANS)
    if not Path(program).exists():
        pytest.skip("containerd is not installed; apt install containerd")
    old = CriContainerd(tmp_path / "c", program, text)
    new = CriDaemon(places(tmp_path / "w"), more=HANDLERS + PINNED)
    try:
        old.start()
        pause = Archive(tmp_path / "pause.tar", PAUSE, [busybox_layer()], Cmd=[], Entrypoint=["/bin/sleep", "100000"])
        old.import_image(pause)
        old.load_image()
        yield old, new
    finally:
        new.close()
        old.close()


def adopt(old: CriDaemon, new: CriDaemon, *options: str) -> str:
    """Run `windlassd adopt`, which must succeed."""
    command = [str(WINDLASSD), *map(str, new._arguments), "adopt"]
    command += ["--from", str(old.root), "--state", str(old.state), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(log: Path) -> list[int]:
    """Return what a container that counts has in its log."""
    return [int(line.split(" ", 3)[3]) for line in log.read_text().splitlines()]


def in_the_hosts_network(daemon: CriDaemon) -> cri.PodSandboxConfig:
    config = daemon.pod_config("p1", labels={"app": "a"})
    config.linux.security_context.namespace_options.network = cri.NODE
    return config


def test_pods_are_taken_over_with_their_logs(daemons: tuple[CriDaemon, CriDaemon]) -> None:
    """One container runs and counts, one has ended, one was never started; all are what they were, and go on."""
    old, new = daemons
    config = in_the_hosts_network(old)
    pod = old.run_pod(config)
    counting = old.container_config(COUNTING, "counting", envs=[cri.KeyValue(key="A", value=b"B")])
    counts = create(old, pod, counting, config)
    old.start_container(counts)
    ended = create(old, pod, old.container_config(("/bin/sh", "-c", "exit 3"), "ended"), config)
    old.start_container(ended)
    created = create(old, pod, old.container_config(SLEEP, "created"), config)
    eventually(lambda: old.container_status(ended).state == cri.CONTAINER_EXITED)
    before = {id: old.container_status(id) for id in (counts, ended, created)}
    log = old.logs / "p1" / "counting.log"
    old.stop()

    adopt(old, new)
    new.start()
    assert [(each.id, each.state, dict(each.labels)) for each in new.pods()] == [(pod, cri.SANDBOX_READY, {"app": "a"})]
    for id, was in before.items():
        now = new.container_status(id)
        assert (now.state, now.exit_code, now.created_at) == (was.state, was.exit_code, was.created_at)
        assert (now.metadata.name, now.image_ref, now.log_path) == (was.metadata.name, was.image_ref, was.log_path)
    length = len(numbers(log))
    eventually(lambda: len(numbers(log)) > length + 20)
    assert numbers(log) == list(range(1, len(numbers(log)) + 1))
    assert new.exec(counts, "/bin/echo", "within") == "within\n"

    new.start_container(created)
    assert "/dev/shm tmpfs" in new.exec(created, "/bin/cat", "/proc/mounts")
    config = in_the_hosts_network(new)
    fresh = create(new, pod, new.container_config(SLEEP, "fresh"), config)
    new.start_container(fresh)
    assert new.exec(fresh, "/bin/cat", "/proc/1/ns/../cmdline").startswith("/bin/sleep")
    new.remove_pod(pod)
    assert not new.pods()
    assert not [each for each in new.leftovers() if "io.containerd.runtime" in each]


def test_pods_are_given_back(daemons: tuple[CriDaemon, CriDaemon]) -> None:
    """With the lines that were written meanwhile."""
    old, new = daemons
    config = in_the_hosts_network(old)
    pod = old.run_pod(config)
    counts = create(old, pod, old.container_config(COUNTING, "counting"), config)
    old.start_container(counts)
    old.stop()
    adopt(old, new)
    new.start()
    eventually(lambda: new.container_status(counts).state == cri.CONTAINER_RUNNING)
    new.stop()
    adopt(old, new, "--back")
    old.start()
    eventually(lambda: serves(old), 30)
    assert [(each.id, each.state) for each in old.pods()] == [(pod, cri.SANDBOX_READY)]
    assert old.container_status(counts).state == cri.CONTAINER_RUNNING
    log = old.logs / "p1" / "counting.log"
    length = len(numbers(log))
    eventually(lambda: len(numbers(log)) > length + 20)
    assert numbers(log) == list(range(1, len(numbers(log)) + 1))
    old.remove_pod(pod)


def serves(daemon: CriDaemon) -> bool:
    """Return whether CRI is initialised."""
    try:
        return bool(daemon.pods())
    except grpc.RpcError:
        return False


def create(daemon: CriDaemon, pod: str, config: cri.ContainerConfig, sandbox: cri.PodSandboxConfig) -> str:
    """Create a container, as a kubelet does: with the configuration of its pod."""
    request = cri.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=sandbox)
    return daemon.runtime.CreateContainer(request, timeout=60).container_id
