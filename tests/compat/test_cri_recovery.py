"""Pods outlive the daemon: after a crash each is as it was, and what the daemon had half made is gone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from compat.cri_daemon import CriDaemon, running_cri
from compat.scratch_daemon import mounts_below, processes_of, wait_until
from compat.test_cri_network import Trouble, assert_nothing_left, cni_config, namespace_path
from compat.test_cri_pods import linux, refused

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_linux import netns
from windlass_sandboxer.pod import started

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def clean(cri_daemon: CriDaemon) -> Iterator[None]:
    yield
    for pod in cri_daemon.pods():
        cri_daemon.remove_pod(pod.id)
    assert_nothing_left(cri_daemon)


def info_of(daemon: CriDaemon, pod: str) -> dict[str, object]:
    found = json.loads(daemon.pod_status(pod, verbose=True).info["info"])
    assert isinstance(found, dict)
    return found


def test_a_pod_is_after_a_crash_as_it_was(cri_daemon: CriDaemon) -> None:
    config = cri_daemon.pod_config("keeps", labels={"a": "b"}, annotations={"c": "d"}, hostname="keeps")
    pod = cri_daemon.run_pod(config)
    container = cri_daemon.run_container(pod)
    before, info = cri_daemon.pod_status(pod).status, info_of(cri_daemon, pod)
    cri_daemon.restart()
    assert cri_daemon.pod_status(pod).status == before
    assert info_of(cri_daemon, pod) == info
    assert cri_daemon.container_status(container).state == cri.CONTAINER_RUNNING
    assert cri_daemon.exec(container, "/bin/hostname") == "keeps\n"
    with refused(grpc.StatusCode.FAILED_PRECONDITION, f'is reserved for "{pod}"'):
        cri_daemon.run_pod(config)
    os.kill(int(str(info["pid"])), signal.SIGKILL)
    assert wait_until(lambda: cri_daemon.pod_status(pod).status.state == cri.SANDBOX_NOTREADY)


def test_containers_can_be_made_in_a_pod_of_before_the_crash(cri_daemon: CriDaemon) -> None:
    pod = cri_daemon.run_pod()
    earlier = cri_daemon.run_container(pod)
    created = cri_daemon.create_container(pod)
    for _ in range(3):
        cri_daemon.restart()
        config = cri_daemon.container_config()
        config.linux.security_context.namespace_options.pid = cri.POD
        container = cri_daemon.run_container(pod, config)
        links = {cri_daemon.exec(each, "/bin/readlink", "/proc/self/ns/net") for each in (container, earlier)}
        assert len(links) == 1
    cri_daemon.start_container(created)
    assert cri_daemon.container_status(created).state == cri.CONTAINER_RUNNING


def test_a_stopped_pod_stays_stopped(cri_daemon: CriDaemon) -> None:
    pod = cri_daemon.run_pod()
    cri_daemon.stop_pod(pod)
    cri_daemon.restart()
    status = cri_daemon.pod_status(pod).status
    assert status.state == cri.SANDBOX_NOTREADY and status.network == cri.PodSandboxNetworkStatus()


def test_a_pod_of_the_hosts_network_is_found_again(cri_daemon: CriDaemon) -> None:
    pod = cri_daemon.run_pod(cri_daemon.pod_config(linux=linux(network=cri.NODE, pid=cri.CONTAINER)))
    cri_daemon.restart()
    assert cri_daemon.pod_status(pod).status.state == cri.SANDBOX_READY
    wanted = cri_daemon.container_config()
    wanted.linux.security_context.namespace_options.network = cri.NODE
    cri_daemon.run_container(pod, wanted)


def test_a_pod_whose_init_died_meanwhile_is_not_ready(cri_daemon: CriDaemon) -> None:
    pod = cri_daemon.run_pod()
    pid = int(str(info_of(cri_daemon, pod)["pid"]))
    address = cri_daemon.pod_status(pod).status.network.ip
    cri_daemon.kill()
    os.kill(pid, signal.SIGKILL)
    cri_daemon.start()
    status = cri_daemon.pod_status(pod).status
    assert status.state == cri.SANDBOX_NOTREADY and status.network.ip == address


def test_after_a_reboot_pods_are_not_ready_and_can_be_removed(cri_daemon: CriDaemon) -> None:
    pods = [cri_daemon.run_pod(), cri_daemon.run_pod(cri_daemon.pod_config(linux=linux(pid=cri.CONTAINER)))]
    paths = [namespace_path(cri_daemon, pod) for pod in pods]
    pid = int(str(info_of(cri_daemon, pods[0])["pid"]))
    cri_daemon.kill()
    os.kill(pid, signal.SIGKILL)
    state = next(cri_daemon.state.glob("io.containerd.sandbox.controller.v1.windlass"))
    for path in (*state.glob("*/*/ipc"), *state.glob("*/*/uts"), *paths):
        subprocess.run(["umount", "-l", path], check=True)
    subprocess.run(["rm", "-rf", state], check=True)
    cri_daemon.start()
    for pod in pods:
        status = cri_daemon.pod_status(pod).status
        assert status.state == cri.SANDBOX_NOTREADY and not status.network.ip
        cri_daemon.stop_pod(pod)
        cri_daemon.remove_pod(pod)
    assert not any(path.exists() for path in paths)


def test_a_crash_in_the_middle_of_a_pods_start_leaves_nothing(cri_daemon: CriDaemon, tmp_path: Path) -> None:
    trouble = Trouble(cri_daemon, tmp_path)
    assert wait_until(lambda: "trouble" in cni_config(cri_daemon))
    trouble.at("ADD", "hang")
    call = cri_daemon.runtime.RunPodSandbox.future(cri.RunPodSandboxRequest(config=cri_daemon.pod_config("half")))
    assert wait_until((tmp_path / "pid").exists)
    assert cri_daemon.addresses_taken()
    (cached,) = cri_daemon.attachments()
    cri_daemon.kill()
    call.cancel()
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    trouble.clear()
    cri_daemon.start()
    assert wait_until(lambda: not list(cri_daemon.root.glob("*/sandboxes/*")))
    assert_nothing_left(cri_daemon)
    assert not Path(str(cached["netns"])).exists()
    cri_daemon.write_network()
    assert wait_until(lambda: "trouble" not in cni_config(cri_daemon))


def test_a_pod_that_was_nearly_made_is_taken_apart(cri_daemon: CriDaemon) -> None:
    """Its sandbox runs, but the crash came before the daemon's record of it."""
    pod = cri_daemon.run_pod(cri_daemon.pod_config("nearly"))
    path, pid = namespace_path(cri_daemon, pod), int(str(info_of(cri_daemon, pod)["pid"]))
    cri_daemon.kill()
    (path_of_records,) = cri_daemon.root.glob("io.containerd.metadata.v1.*/*.db")
    with contextlib.closing(sqlite3.connect(path_of_records)) as records, records:
        assert records.execute("delete from sandboxes where id = ?", [pod]).rowcount == 1
    cri_daemon.start()
    assert wait_until(lambda: not list(cri_daemon.root.glob("*/sandboxes/*")))
    assert wait_until(lambda: not netns.is_there(path)) and not path.exists()
    assert wait_until(lambda: not started(pid))
    with cri_daemon.pod(cri_daemon.pod_config("nearly")):
        pass


def test_files_of_pods_that_are_gone_are_removed(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod() as pod:
        (directory,) = cri_daemon.root.glob(f"*/sandboxes/{pod}")
        left = directory.with_name("0" * 64)
        left.mkdir()
        (left / "hosts").write_text("")
        cri_daemon.restart()
        assert wait_until(lambda: not left.exists())
        assert directory.exists()


def test_an_orderly_stop_leaves_pods_running(cri_daemon: CriDaemon) -> None:
    pod = cri_daemon.run_pod()
    container = cri_daemon.run_container(pod)
    cri_daemon.stop()
    cri_daemon.start()
    assert cri_daemon.pod_status(pod).status.state == cri.SANDBOX_READY
    assert cri_daemon.exec(container, "/bin/echo", "here") == "here\n"


def test_a_pod_whose_handler_is_configured_no_more_can_be_removed(tmp_path: Path) -> None:
    table = '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.extra]'
    with running_cri(tmp_path, more=f'{table}\nruntime_type = "io.containerd.runc.v2"') as daemon:
        names = [each.name for each in daemon.runtime.Status(cri.StatusRequest(), timeout=20).runtime_handlers]
        assert names == ["", "extra", "runc"]
        pod = daemon.run_pod(handler="extra")
        daemon.run_container(pod)
        assert daemon.pod_status(pod).status.runtime_handler == "extra"
        daemon.kill()
        path = daemon.scratch / "config.toml"
        path.write_text(path.read_text().partition(table)[0])
        daemon.start()
        with refused(grpc.StatusCode.UNKNOWN, 'no runtime for "extra" is configured'):
            daemon.run_pod(handler="extra")
        assert info_of(daemon, pod)["runtimeHandler"] == "extra"
        daemon.remove_pod(pod)
        assert_nothing_left(daemon)


@pytest.mark.skipif(
    "WINDLASS_CHURN" not in os.environ,
    reason="takes 70 to 90 s of a machine with a load of 20, where its patience may end: WINDLASS_CHURN=1 runs it",
)
def test_pods_that_come_and_go_while_the_daemon_crashes_leave_nothing(cri_daemon: CriDaemon) -> None:
    ended = threading.Event()

    def live(number: int) -> int:
        """Make and remove pods; a call that a crash cuts off is made again, as the kubelet does."""
        made = 0
        while not ended.is_set():
            config = cri_daemon.pod_config(f"churn-{number}-{made}")
            with contextlib.suppress(grpc.RpcError, ValueError):
                pod = cri_daemon.run_pod(config)
                made += 1
                cri_daemon.run_container(pod)
                cri_daemon.stop_pod(pod)
                cri_daemon.remove_pod(pod)
            time.sleep(0.05)
        return made

    with ThreadPoolExecutor(4) as clients:
        lives = [clients.submit(live, number) for number in range(4)]
        try:
            for _ in range(3):
                time.sleep(1.5)
                cri_daemon.restart()
        finally:
            ended.set()
        assert sum(each.result() for each in lives) > 0
    for pod in cri_daemon.pods():
        cri_daemon.remove_pod(pod.id)
    # The last daemon sweeps in the background, by CNI plugins.
    assert wait_until(lambda: not list(cri_daemon.root.glob("*/sandboxes/*")), 60)
    assert_nothing_left(cri_daemon)
    assert not list(cri_daemon.state.glob("io.containerd.sandbox.controller.v1.windlass/k8s.io/*"))
    assert not [each for each in mounts_below(cri_daemon.scratch) if "sandbox" in each or "/run/" in each]
    assert not [each for each in processes_of(cri_daemon.scratch) if not each.startswith(f"{cri_daemon.pid} ")]
