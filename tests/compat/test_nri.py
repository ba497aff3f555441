"""NRI over the daemon's socket: plugins see pods and containers, adjust them, fail, and come back."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from compat.cri_daemon import CriDaemon, running_cri
from compat.nri_plugins import Plugins, Watcher
from compat.scratch_daemon import distribution, wait_until
from compat.test_cri_network import assert_nothing_left
from compat.test_cri_pods import refused
from nri.fake_plugin import FakePlugin, hang

from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_api.runtime.v1 import api_pb2 as cri

pytestmark = pytest.mark.root

LIFE = ["create", "created", "start", "started", "stop", "remove"]


def block(directory: Path, more: str = "") -> str:
    return (
        f'[plugins."io.containerd.nri.v1.nri"]\nsocket_path = "{directory}/nri/nri.sock"\n'
        f'plugin_path = "{directory}/plugins"\nplugin_config_path = "{directory}/conf"\n{more}\n'
    )


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriDaemon]:
    directory = tmp_path_factory.mktemp("nri")
    # The time that a test of a plugin that hangs takes, and that another has on a busy machine.
    limits = 'plugin_request_timeout = "8s"\nplugin_registration_timeout = "30s"'
    with running_cri(directory, more=block(directory, limits)) as made:
        yield made


@contextmanager
def plugins_of(daemon: CriDaemon) -> Iterator[Plugins]:
    made = Plugins(daemon.scratch / "nri" / "nri.sock")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def plugins(daemon: CriDaemon) -> Iterator[Plugins]:
    with plugins_of(daemon) as made:
        yield made
    for pod in daemon.pods():
        daemon.remove_pod(pod.id)
    assert_nothing_left(daemon)
    assert not daemon.runtime.ListContainers(cri.ListContainersRequest()).containers


def limit(daemon: CriDaemon, id: str) -> int:
    return daemon.container_status(id).resources.linux.memory_limit_in_bytes


def test_a_plugin_sees_a_life_in_order(daemon: CriDaemon, plugins: Plugins) -> None:
    watcher = Watcher()
    plugins.watch(watcher)
    with daemon.pod() as pod:
        container = daemon.run_container(pod)
        resources = cri.LinuxContainerResources(memory_limit_in_bytes=64 << 20)
        request = cri.UpdateContainerResourcesRequest(container_id=container, linux=resources)
        daemon.runtime.UpdateContainerResources(request, timeout=30)
        shown = daemon.container_status(container).resources.linux
        assert (shown.memory_limit_in_bytes, shown.cpu_shares) == (64 << 20, 222)
        daemon.stop_pod(pod)
        daemon.stop_pod(pod)
    order = ["run pod", *LIFE[:4], "update", "updated", "stop", "stop pod", "remove", "remove pod"]
    assert watcher.seen == order
    assert watcher.containers["create"].state == nri.CONTAINER_UNKNOWN
    assert watcher.containers["created"].state == nri.CONTAINER_CREATED and watcher.containers["start"].pid > 0
    assert watcher.containers["started"].state == nri.CONTAINER_RUNNING
    ended = watcher.containers["stop"]
    assert (ended.state, ended.exit_code, ended.id) == (nri.CONTAINER_STOPPED, 137, container)


def test_a_container_has_what_plugins_adjust(daemon: CriDaemon, plugins: Plugins, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\nexec /bin/cp /dev/stdin {tmp_path}/state\n")
    hook.chmod(0o755)
    (tmp_path / "shared").mkdir()
    watcher = Watcher()
    adjust = watcher.adjust
    adjust.env.add(key="SITE", value="berlin")
    adjust.mounts.add(destination="/shared", type="bind", source=f"{tmp_path}/shared", options=["bind", "ro"])
    adjust.linux.devices.add(path="/dev/nri-null", type="c", major=1, minor=3)
    # Not that of files: older runcs, which raise the soft one for themselves, at times leave it so.
    adjust.rlimits.add(type="RLIMIT_CORE", hard=4000, soft=3000)
    adjust.hooks.create_runtime.add(path=str(hook))
    adjust.linux.resources.memory.limit.value = 48 << 20
    adjust.annotations["nri"] = "was here"
    plugins.watch(watcher)
    with daemon.pod() as pod:
        container = daemon.run_container(pod)
        limits = "grep -c 'core file size *3000 *4000' /proc/self/limits"
        script = f"echo $SITE; {limits}; test -c /dev/nri-null && grep -c ' /shared ro' /proc/self/mountinfo"
        assert daemon.exec(container, "/bin/sh", "-c", script) == "berlin\n1\n1\n"
        assert container in (tmp_path / "state").read_text()
        assert limit(daemon, container) == 48 << 20
        assert watcher.containers["created"].annotations["nri"] == "was here"


def test_two_plugins_that_set_one_thing_end_the_creation(daemon: CriDaemon, plugins: Plugins) -> None:
    """Nothing of it is left, both see it go, and the name is free."""
    first, second = Watcher(), Watcher()
    for watcher in (first, second):
        watcher.adjust.env.add(key="SITE", value="berlin")
    plugins.watch(first)
    other = plugins.watch(second, "20", "other")
    with daemon.pod() as pod:
        config = daemon.container_config(name="contested")
        with refused(grpc.StatusCode.UNKNOWN, '"20-other" and "10-watcher" both tried to set'):
            daemon.create_container(pod, config)
        assert first.seen == second.seen == ["run pod", "create", "stop", "remove"]
        assert not daemon.runtime.ListContainers(cri.ListContainersRequest()).containers
        assert not list(daemon.root.glob("*/containers/*"))
        plugins.loop.run(lambda: _close(other.close))
        assert wait_until(lambda: '20-other" was closed' in daemon.log.read_text() or _creates(daemon, pod, config))


async def _close(close: object) -> None:
    assert callable(close)
    close()


def _creates(daemon: CriDaemon, pod: str, config: cri.ContainerConfig) -> bool:
    try:
        daemon.create_container(pod, config)
    except grpc.RpcError:
        return False
    return True


def test_a_refusal_names_pod_container_step_and_plugin(daemon: CriDaemon, plugins: Plugins) -> None:
    watcher = Watcher()
    plugins.watch(watcher)
    config = daemon.pod_config("guarded")
    watcher.refuses = "run pod"
    with refused(grpc.StatusCode.UNKNOWN, "pod guarded_default_uid-guarded_0: "):
        daemon.run_pod(config)
    assert_nothing_left(daemon)
    assert watcher.seen == ["run pod", "stop pod", "remove pod"]
    watcher.seen.clear()
    watcher.refuses = "create"
    with daemon.pod(config) as pod:
        with pytest.raises(grpc.RpcError) as caught:
            daemon.create_container(pod, daemon.container_config(name="main"))
        for part in ("main_guarded_default_uid-guarded_0", "create_container", '"10-watcher"', "create is not for you"):
            assert part in str(caught.value.details())
        watcher.refuses = "start"
        container = daemon.create_container(pod, daemon.container_config(name="main"))
        with refused(grpc.StatusCode.UNKNOWN, "start is not for you"):
            daemon.start_container(container)
        status = daemon.container_status(container)
        assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 128, "StartError")
    creation = ["create", "stop", "remove", "create", "created", "start", "stop"]
    assert watcher.seen == ["run pod", *creation, "stop pod", "remove", "remove pod"]


def test_a_plugin_that_hangs_is_left_out_and_another_goes_on(daemon: CriDaemon, plugins: Plugins) -> None:
    watcher = Watcher()
    watcher.adjust.env.add(key="SITE", value="berlin")
    plugins.watch(watcher)
    sick = plugins.fake(FakePlugin("05", "sick", {"CreateContainer": hang}))
    with daemon.pod() as pod, ThreadPoolExecutor(4) as pool:
        for container in pool.map(lambda _: daemon.run_container(pod), range(4)):
            assert daemon.exec(container, "/bin/sh", "-c", "echo $SITE") == "berlin\n"
    assert sick.asked.count("CreateContainer") == 1
    assert "no answer of" in daemon.log.read_text() and "05-sick" in daemon.log.read_text()
    assert len(watcher.seen) == len(LIFE) * 4 + 3


def test_a_hundred_megabytes_and_garbage_end_their_own_connections(daemon: CriDaemon, plugins: Plugins) -> None:
    before = _resident(daemon.pid)
    for sent in (b"\0\0\0\1\x7f\xff\xff\xff", b"\0\0\0\2\0\x40\0\x0a", b"\xff" * 100):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(plugins.path))
            peer.settimeout(60)
            try:
                for _ in range(100):
                    peer.sendall(sent + bytes(1 << 20))
                assert peer.recv(1) == b""
            except (BrokenPipeError, ConnectionResetError):
                pass
    with daemon.pod() as pod:
        daemon.run_container(pod)
    assert _resident(daemon.pid) - before < 40 << 10


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def test_a_plugin_updates_and_evicts_without_being_asked(daemon: CriDaemon, plugins: Plugins) -> None:
    watcher = Watcher()
    plugins.watch(watcher)
    with daemon.pod() as pod:
        kept, evicted = daemon.run_container(pod), daemon.run_container(pod)
        update = nri.ContainerUpdate(container_id=kept)
        update.linux.resources.memory.limit.value = 32 << 20
        update.linux.resources.pids.limit = 77
        fake = plugins.fake(FakePlugin("20", "policy", {}))
        request = nri.UpdateContainersRequest(
            update=[update, nri.ContainerUpdate(container_id="f" * 64)],
            evict=[nri.ContainerEviction(container_id=evicted, reason="room")],
        )
        answer = plugins.loop.run(lambda: fake.tell("UpdateContainers", request))
        assert not nri.UpdateContainersResponse.FromString(answer).failed
        assert limit(daemon, kept) == 32 << 20
        assert [path.read_text() for path in Path("/sys/fs/cgroup").glob(f"pids/**/{kept}/pids.max")] in ([], ["77\n"])
        assert daemon.container_status(evicted).state == cri.CONTAINER_EXITED
        assert wait_until(lambda: "StopContainer" in fake.asked) and "stop" in watcher.seen


PROGRAM = """#!{python}
import asyncio
from windlass.contracts.pods import Answer
from windlass.hooks import hookimpl
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri import naming
from windlass_nri.stub import Stub, hooks_of
import os

class Adjusts:
    @hookimpl
    def create_container(self):
        response = nri.CreateContainerResponse()
        response.adjust.env.add(key="BY", value=str(os.getpid()))
        return Answer("adjusts", response)

async def main():
    name, index = os.environ[naming.NAME_VARIABLE], os.environ[naming.INDEX_VARIABLE]
    await Stub(hooks_of(Adjusts(), name), name, index).start()
    await asyncio.Event().wait()  # it outlives the connection

asyncio.run(main())
"""
GUARD = """plugin_request_timeout = "30s"
plugin_registration_timeout = "60s"
[plugins."io.containerd.nri.v1.nri".policies.guard]
on_failure = "closed"
exempt_labels = { app = "guard" }
[plugins."io.containerd.nri.v1.nri".default_validator]
enable = true
reject_oci_hook_adjustment = true
required_plugins = ["guard"]
tolerate_missing_plugins_annotation = "guard/tolerate"
"""


INSIDE = """
from windlass.contracts.pods import Answer, PodHooks
from windlass.hooks import hookimpl
from windlass.plugin import HOOK, Plugin
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2

class Sites:
    @hookimpl
    def create_container(self, pod):
        response = api_pb2.CreateContainerResponse()
        response.adjust.env.add(key="SITE", value=pod.labels.get("site", "berlin"))
        return Answer("sites", response)

ONE = Plugin(HOOK, id="sites", init=lambda context: Sites(), steps=(PodHooks,))
"""


def test_closed_policies_crashes_and_installed_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One daemon, for its start takes longest; it has a hook plugin of its own too."""
    distribution(tmp_path / "site", "sites", {"io.windlass.hook.v1.sites": "sites:ONE"}, INSIDE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    program = tmp_path / "plugins" / "30-adjusts"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    with running_cri(tmp_path, more=block(tmp_path, GUARD)) as daemon, plugins_of(daemon) as plugins:
        with refused(grpc.StatusCode.UNKNOWN, 'plugin "guard" is not there'):
            daemon.run_pod()
        assert_nothing_left(daemon)
        own = daemon.pod_config("guard", labels={"app": "guard"}, annotations={"guard/tolerate": "true"})
        with daemon.pod(own) as pod:
            first, site = _adjusted(daemon, pod)
            assert site == "berlin"
            watcher = Watcher()
            plugins.watch(watcher, "10", "guard")
            assert watcher.there == sorted([pod, *(each.id for each in _containers(daemon))])
            with daemon.pod():
                pass
            watcher.adjust.hooks.prestart.add(path="/bin/true")
            with refused(grpc.StatusCode.UNKNOWN, "OCI hook"):
                daemon.create_container(pod)
            del watcher.adjust.hooks.prestart[:]
            watcher.adjust.env.add(key="SITE", value="paris")
            with pytest.raises(grpc.RpcError, match='"sites"') as caught:
                daemon.create_container(pod)
            assert '"10-guard"' in str(caught.value.details())
            assert len(_containers(daemon)) == 1
            daemon.restart()
            plugins.disconnect()
            with refused(grpc.StatusCode.UNKNOWN, 'plugin "guard" is not there'):
                daemon.run_pod()
            assert wait_until(lambda: not _runs(first))
            again = Watcher()
            plugins.watch(again, "10", "guard")
            assert again.there == sorted([pod, *(each.id for each in _containers(daemon))])
            second, site = _adjusted(daemon, pod)
            assert second != first and site == "berlin"
        assert again.seen[-4:].count("remove") == 2 and again.seen[-1] == "remove pod"
        daemon.stop()
        assert not _runs(second) and not plugins.path.exists()
        daemon.start()


def _runs(pid: int) -> bool:
    """Tell whether a process is there, and has not ended; who is to reap it may be slow."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def _containers(daemon: CriDaemon) -> list[cri.Container]:
    return list(daemon.runtime.ListContainers(cri.ListContainersRequest()).containers)


def _adjusted(daemon: CriDaemon, pod: str) -> tuple[int, str]:
    """Return what the installed plugin and the one in the daemon adjust of a new container: a PID, and a site."""
    found = daemon.exec(daemon.run_container(pod), "/bin/sh", "-c", "echo $BY $SITE")
    pid, _, site = found.strip().partition(" ")
    return int(pid), site
