"""Clients that ask again while their first attempt runs; what a pod holds, and what its containers' logs hold."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from compat.cri_daemon import CriDaemon, running_cri
from compat.scratch_daemon import wait_until
from compat.test_cri_network import Trouble, assert_nothing_left, cni_config, namespace_path
from compat.test_cri_pods import refused

from windlass_api.containerd.services.leases.v1 import leases_pb2, leases_pb2_grpc
from windlass_api.runtime.v1 import api_pb2 as cri

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriDaemon]:
    with running_cri(tmp_path_factory.mktemp("retries"), runtime="netns_mounts_under_state_dir = true") as daemon:
        yield daemon


@pytest.fixture
def trouble(daemon: CriDaemon, tmp_path: Path) -> Iterator[Trouble]:
    made = Trouble(daemon, tmp_path)
    assert wait_until(lambda: "trouble" in cni_config(daemon))
    try:
        yield made
    finally:
        made.clear()
        daemon.write_network()
        assert wait_until(lambda: "trouble" not in cni_config(daemon))


def leases(daemon: CriDaemon) -> list[str]:
    stub = leases_pb2_grpc.LeasesStub(daemon.connection)
    answer = stub.List(leases_pb2.ListRequest(), timeout=20, metadata=(("containerd-namespace", "k8s.io"),))
    return [each.id for each in answer.leases]


def test_a_pod_has_a_lease_with_its_id_until_it_is_removed(daemon: CriDaemon) -> None:
    with daemon.pod() as pod:
        assert leases(daemon) == [pod]
        daemon.run_container(pod)
        daemon.restart()
        assert leases(daemon) == [pod]
        daemon.stop_pod(pod)
        assert leases(daemon) == [pod]
    assert leases(daemon) == []


def test_the_network_namespace_is_named_below_the_state_directory(daemon: CriDaemon) -> None:
    with daemon.pod() as pod:
        path = namespace_path(daemon, pod)
        assert path.is_relative_to(daemon.state) and path.exists()
        daemon.restart()
        assert daemon.pod_status(pod).status.state == cri.SANDBOX_READY
    assert not path.exists()
    assert_nothing_left(daemon)


def test_another_configuration_is_refused_while_the_first_attempt_runs(daemon: CriDaemon, trouble: Trouble) -> None:
    config, other = daemon.pod_config("twice"), daemon.pod_config("twice", labels={"other": "one"})
    trouble.at("ADD", "slow")
    with ThreadPoolExecutor(2) as clients:
        calls = [clients.submit(daemon.run_pod, config) for _ in range(2)]
        assert wait_until((trouble.folder / "ADD.json").exists)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, 'failed to reserve sandbox name "twice_default_uid-twice_0"'):
            daemon.run_pod(other)
        first, second = (call.result() for call in calls)
    assert first == second
    with refused(grpc.StatusCode.FAILED_PRECONDITION, f'is reserved for "{first}"'):
        daemon.run_pod(config)  # it was told already
    daemon.remove_pod(first)
    assert_nothing_left(daemon)


def test_a_retry_after_the_first_attempt_had_no_client_gets_its_pod(daemon: CriDaemon, trouble: Trouble) -> None:
    config = daemon.pod_config("late")
    trouble.at("ADD", "slow")
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED, ""):
        daemon.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config), timeout=0.3)
    assert wait_until(lambda: len(daemon.pods()) == 1)
    pod = daemon.run_pod(config)
    assert [each.id for each in daemon.pods()] == [pod]
    daemon.remove_pod(pod)
    assert_nothing_left(daemon)


def test_every_waiting_client_gets_the_failure_and_a_later_one_tries_anew(daemon: CriDaemon, trouble: Trouble) -> None:
    config = daemon.pod_config("fails")
    trouble.at("ADD", "fail")
    for _ in range(2):
        with refused(
            grpc.StatusCode.UNKNOWN, 'pod fails_default_uid-fails_0: network: network "net-cni0": CNI plugin trouble'
        ):
            daemon.run_pod(config)
    trouble.clear()
    with daemon.pod(config):
        pass
    assert_nothing_left(daemon)


def test_container_attempts_are_joined_and_their_errors_name_the_step(daemon: CriDaemon) -> None:
    with daemon.pod() as pod:
        config = daemon.container_config(name="same")
        with ThreadPoolExecutor(4) as clients:
            made = set(clients.map(lambda _: _created(daemon, pod, config), range(4))) - {""}
        assert len(made) == 1 and len(daemon.runtime.ListContainers(cri.ListContainersRequest()).containers) == 1
        missing = daemon.container_config(image=cri.ImageSpec(image="docker.io/library/none:1"))
        with refused(grpc.StatusCode.NOT_FOUND, ": image: "):
            daemon.create_container(pod, missing)
        mounts = [cri.Mount(container_path="/x", image=cri.ImageSpec(image="none:1"), readonly=True)]
        with refused(grpc.StatusCode.UNKNOWN, "failed to mount image volume: ImageVolumeMountFailed: "):
            daemon.create_container(pod, daemon.container_config(mounts=mounts))
        bad = daemon.create_container(pod, daemon.container_config(command=["/bin/nope"]))
        with refused(grpc.StatusCode.UNKNOWN, ": runtime: "):
            daemon.start_container(bad)
        file = [cri.Mount(container_path="/bin/busybox/x", host_path=str(daemon.logs))]
        odd = daemon.create_container(pod, daemon.container_config(mounts=file))
        with refused(grpc.StatusCode.UNKNOWN, ": mount: "):
            daemon.start_container(odd)
    assert leases(daemon) == []


def _created(daemon: CriDaemon, pod: str, config: cri.ContainerConfig) -> str:
    """The container's ID; nothing for a client that came when the others had been told."""
    try:
        return daemon.create_container(pod, config)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        return ""


def test_a_log_on_a_full_disk_and_in_a_missing_directory(daemon: CriDaemon) -> None:
    place = daemon.scratch / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=True)
    try:
        config = daemon.pod_config(log_directory=str(place / "made" / "by us"))
        with daemon.pod(config) as pod:
            script = "i=0; while [ $i -lt 4000 ]; do echo line $i; i=$((i+1)); done; echo full; sleep 1000"
            container = daemon.run_container(pod, daemon.container_config(["/bin/sh", "-c", script], "c"))
            log = place / "made" / "by us" / "c.log"
            # The container is not held up by its log, and the file ends with a whole line.
            assert wait_until(lambda: "a container's log are lost" in daemon.log.read_text())
            assert daemon.exec(container, "/bin/echo", "here") == "here\n"
            lines = log.read_bytes().split(b"\n")
            assert lines[-1] == b"" and all(b" stdout F " in line for line in lines[:-1])
            log.rename(log.with_name("old"))
            (log.with_name("old")).unlink()
            request = cri.ReopenContainerLogRequest(container_id=container)
            daemon.runtime.ReopenContainerLog(request, timeout=20)
            assert log.exists()
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_no_line_of_a_log_is_lost_when_the_daemon_is_killed(daemon: CriDaemon) -> None:
    with daemon.pod(daemon.pod_config("lines")) as pod:
        script = "i=0; while [ $i -lt 60000 ]; do echo line $i; i=$((i+1)); done; sleep 1000"
        daemon.run_container(pod, daemon.container_config(["/bin/sh", "-c", script], "c"))
        log = daemon.logs / "lines" / "c.log"
        for _ in range(3):
            assert wait_until(log.exists)
            size = log.stat().st_size
            wait_until(lambda size=size: log.stat().st_size > size, 5)
            daemon.restart()
        assert wait_until(lambda: b"line 59999\n" in log.read_bytes(), 60)
        found = [int(line.rsplit(b" ", 1)[1]) for line in log.read_bytes().splitlines()]
        missing = sorted(set(range(60000)) - set(found))
        assert not missing, (len(missing), missing[:3])
