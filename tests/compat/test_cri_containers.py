"""Containers of pods with a real daemon and runc: what they are given, how they end, and what they use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from compat.cri_daemon import IMAGE, CriDaemon, running_cri
from compat.images import Archive, busybox_layer
from compat.scratch_daemon import wait_until

from windlass_api.runtime.v1 import api_pb2 as cri

SHELL = ("/bin/sh", "-c")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriDaemon]:
    with running_cri(tmp_path_factory.mktemp("ctr")) as running:
        yield running


@pytest.fixture(scope="module")
def pod(daemon: CriDaemon) -> Iterator[str]:
    with daemon.pod(daemon.pod_config("ctrs")) as id:
        yield id


def ended(daemon: CriDaemon, id: str) -> cri.ContainerStatus:
    assert wait_until(lambda: daemon.container_status(id).state == cri.CONTAINER_EXITED, 30)
    return daemon.container_status(id)


def log_of(daemon: CriDaemon, id: str) -> list[str]:
    text = Path(daemon.container_status(id).log_path).read_text()
    return [" ".join(line.split(" ")[1:]) for line in text.splitlines()]


def run(daemon: CriDaemon, pod: str, script: str) -> str:
    return daemon.run_container(pod, daemon.container_config((*SHELL, script)))


def details(failure: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    return failure.value.details() or ""


def test_exits_have_their_reasons(daemon: CriDaemon, pod: str) -> None:
    done, failed = run(daemon, pod, "exit 0"), run(daemon, pod, "exit 3")
    assert (ended(daemon, done).reason, ended(daemon, done).exit_code) == ("Completed", 0)
    assert (ended(daemon, failed).reason, ended(daemon, failed).exit_code) == ("Error", 3)


def test_a_start_that_fails(daemon: CriDaemon, pod: str) -> None:
    id = daemon.create_container(pod, daemon.container_config(("/no/such/program",)))
    with pytest.raises(grpc.RpcError) as failure:
        daemon.start_container(id)
    assert failure.value.code() == grpc.StatusCode.UNKNOWN
    status = daemon.container_status(id)
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 128, "StartError")
    assert "/no/such/program" in status.message
    assert status.message.startswith("container ")
    assert ": runtime: failed to create containerd task: " in status.message
    assert status.started_at == 0 < status.finished_at


def test_an_exec_of_a_program_that_is_not_there(daemon: CriDaemon, pod: str) -> None:
    id = daemon.run_container(pod)
    with pytest.raises(grpc.RpcError) as failure:
        daemon.exec(id, "/no/such/program")
    assert failure.value.code() == grpc.StatusCode.UNKNOWN
    assert str(failure.value.details()).startswith('failed to exec in container: failed to start exec "')


def test_a_status_names_the_image_by_its_tag_alone(daemon: CriDaemon, pod: str) -> None:
    config = daemon.container_config()
    config.image.user_specified_image = "what-the-user-wrote"
    status = daemon.container_status(daemon.create_container(pod, config))
    assert status.image == cri.ImageSpec(image=IMAGE)
    (image,) = [each for each in daemon.images.ListImages(cri.ListImagesRequest(), timeout=20).images if each.repo_tags]
    assert not image.HasField("spec")


@pytest.mark.parametrize(("script", "code"), [("exec tail /dev/zero", 137), ("(tail /dev/zero); exit 0", 0)])
def test_a_kill_for_want_of_memory_is_the_reason(daemon: CriDaemon, pod: str, script: str, code: int) -> None:
    config = daemon.container_config((*SHELL, script))
    config.linux.resources.memory_limit_in_bytes = 16 << 20
    status = ended(daemon, daemon.run_container(pod, config))
    assert (status.reason, status.exit_code) == ("OOMKilled", code)


def test_status_shows_what_the_spec_has(daemon: CriDaemon, pod: str) -> None:
    config = daemon.container_config(stop_signal=cri.SIGNAL_SIGUSR1)
    config.linux.security_context.run_as_user.value = 1234
    config.linux.security_context.supplemental_groups.append(77)
    config.linux.resources.cpu_shares = 100
    id = daemon.run_container(pod, config)
    status = daemon.container_status(id)
    assert (status.user.linux.uid, list(status.user.linux.supplemental_groups)) == (1234, [0, 77])
    assert status.resources.linux.cpu_shares == 100
    assert status.stop_signal == cri.SIGNAL_SIGUSR1
    assert status.image.image == IMAGE
    assert daemon.exec(id, "id", "-u").strip() == "1234"


def test_verbose_status_has_config_and_spec(daemon: CriDaemon, pod: str) -> None:
    id = daemon.run_container(pod)
    request = cri.ContainerStatusRequest(container_id=id)
    assert not daemon.runtime.ContainerStatus(request).info
    request.verbose = True
    info = json.loads(daemon.runtime.ContainerStatus(request).info["info"])
    assert info["sandboxID"] == pod
    assert info["pid"] > 0
    assert info["snapshotKey"] == id
    assert info["runtimeSpec"]["process"]["args"] == info["config"]["command"]


def test_limits_are_changed(daemon: CriDaemon, pod: str) -> None:
    id = daemon.run_container(pod)
    wanted = cri.LinuxContainerResources(memory_limit_in_bytes=64 << 20, cpu_shares=50)
    daemon.runtime.UpdateContainerResources(cri.UpdateContainerResourcesRequest(container_id=id, linux=wanted))
    shown = daemon.container_status(id).resources.linux
    assert (shown.memory_limit_in_bytes, shown.cpu_shares) == (64 << 20, 50)
    stats = daemon.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=id)).stats
    assert 0 < stats.memory.available_bytes.value < 64 << 20


def test_limits_that_cannot_be_leave_all_as_it_was(daemon: CriDaemon, pod: str) -> None:
    id = daemon.run_container(pod)
    wanted = cri.LinuxContainerResources(cpuset_cpus="4000")
    with pytest.raises(grpc.RpcError) as failure:
        daemon.runtime.UpdateContainerResources(cri.UpdateContainerResourcesRequest(container_id=id, linux=wanted))
    assert failure.value.code() == grpc.StatusCode.UNKNOWN
    assert daemon.container_status(id).resources.linux.cpuset_cpus == ""


def test_limits_of_a_container_that_has_not_started(daemon: CriDaemon, pod: str) -> None:
    id = daemon.create_container(pod)
    wanted = cri.LinuxContainerResources(memory_limit_in_bytes=64 << 20)
    daemon.runtime.UpdateContainerResources(cri.UpdateContainerResourcesRequest(container_id=id, linux=wanted))
    daemon.start_container(id)
    stats = daemon.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=id)).stats
    assert 0 < stats.memory.available_bytes.value < 64 << 20


def test_stats_of_containers_and_pods(daemon: CriDaemon, pod: str) -> None:
    id = run(daemon, pod, "echo text > /file; exec sleep 1000")
    stats = daemon.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=id)).stats
    assert stats.attributes.id == id
    assert stats.cpu.usage_core_nano_seconds.value > 0
    assert stats.memory.working_set_bytes.value > 0
    assert stats.writable_layer.timestamp > 0
    assert stats.writable_layer.fs_id.mountpoint
    chosen = cri.ContainerStatsFilter(pod_sandbox_id=pod)
    listed = daemon.runtime.ListContainerStats(cri.ListContainerStatsRequest(filter=chosen)).stats
    assert id in [each.attributes.id for each in listed]
    streamed = list(daemon.runtime.StreamContainerStats(cri.StreamContainerStatsRequest(filter=chosen)))
    assert [each.attributes.id for each in streamed[0].container_stats] == [each.attributes.id for each in listed]


def test_stats_of_pods(daemon: CriDaemon) -> None:
    with daemon.pod() as pod:
        daemon.run_container(pod)

        def measured() -> cri.LinuxPodSandboxStats:
            return daemon.runtime.PodSandboxStats(cri.PodSandboxStatsRequest(pod_sandbox_id=pod)).stats.linux

        assert wait_until(lambda: measured().process.process_count.value == 1)  # runc has left
        stats = measured()
        assert stats.network.default_interface.name == "eth0"
        assert stats.memory.usage_bytes.value > 0
        assert len(stats.containers) == 1
        chosen = cri.PodSandboxStatsFilter(id=pod)
        listed = daemon.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest(filter=chosen)).stats
        assert [each.attributes.id for each in listed] == [pod]
        daemon.stop_pod(pod)
        with pytest.raises(grpc.RpcError) as failure:
            daemon.runtime.PodSandboxStats(cri.PodSandboxStatsRequest(pod_sandbox_id=pod))
        assert failure.value.code() == grpc.StatusCode.UNAVAILABLE


def test_stats_of_a_container_that_has_ended(daemon: CriDaemon, pod: str) -> None:
    id = run(daemon, pod, "exit 0")
    ended(daemon, id)
    with pytest.raises(grpc.RpcError) as failure:
        daemon.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=id))
    assert failure.value.code() == grpc.StatusCode.UNKNOWN
    chosen = cri.ContainerStatsFilter(id=id)
    (listed,) = daemon.runtime.ListContainerStats(cri.ListContainerStatsRequest(filter=chosen)).stats
    assert not listed.HasField("cpu")


def test_logs_of_both_streams(daemon: CriDaemon, pod: str) -> None:
    id = run(daemon, pod, "echo out; echo; echo err >&2; printf 'a\\r\\nrest'")
    ended(daemon, id)
    found = log_of(daemon, id)
    assert [line for line in found if line.startswith("stdout")] == [
        "stdout F out",
        "stdout F ",
        "stdout F a",
        "stdout P rest",
    ]
    assert "stderr F err" in found


def test_a_log_is_reopened(daemon: CriDaemon, pod: str) -> None:
    id = run(daemon, pod, "while true; do echo line; sleep 0.1; done")
    path = Path(daemon.container_status(id).log_path)
    assert wait_until(lambda: path.stat().st_size)
    path.rename(path.with_suffix(".1"))
    daemon.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=id))
    assert wait_until(lambda: path.exists() and path.stat().st_size)
    daemon.runtime.StopContainer(cri.StopContainerRequest(container_id=id, timeout=0))
    with pytest.raises(grpc.RpcError) as failure:
        daemon.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=id))
    assert (failure.value.code(), details(failure)) == (grpc.StatusCode.UNKNOWN, "container is not running")


def test_a_log_out_of_the_pods_directory_is_refused(daemon: CriDaemon, pod: str) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        daemon.create_container(pod, daemon.container_config(log_path="../../escaped.log"))
    assert "not below the log_directory" in details(failure)


def test_the_pid_namespace_of_another_container(daemon: CriDaemon, pod: str) -> None:
    target = run(daemon, pod, "exec sleep 4321")
    config = daemon.container_config()
    config.linux.security_context.namespace_options.pid = cri.TARGET
    config.linux.security_context.namespace_options.target_id = target
    id = daemon.run_container(pod, config)
    assert "sleep 4321" in daemon.exec(id, "ps")
    config = daemon.container_config()
    config.linux.security_context.namespace_options.pid = cri.TARGET
    config.linux.security_context.namespace_options.target_id = "nope"
    with pytest.raises(grpc.RpcError) as failure:
        daemon.create_container(pod, config)
    assert failure.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_stop_signal_is_sent_first(daemon: CriDaemon, pod: str) -> None:
    script = "trap 'exit 7' USR1; while true; do sleep 0.1; done"
    config = daemon.container_config((*SHELL, script), stop_signal=cri.SIGNAL_SIGUSR1)
    id = daemon.run_container(pod, config)
    assert wait_until(lambda: "sleep" in daemon.exec(id, "ps"))
    daemon.runtime.StopContainer(cri.StopContainerRequest(container_id=id, timeout=20))
    assert daemon.container_status(id).exit_code == 7


def test_an_unknown_stop_signal(daemon: CriDaemon, pod: str) -> None:
    config = daemon.container_config()
    config.stop_signal = 999  # type: ignore[assignment] # what a client may send
    with pytest.raises(grpc.RpcError) as failure:
        daemon.create_container(pod, config)
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_an_image_as_a_volume(daemon: CriDaemon) -> None:
    with daemon.pod() as pod:
        config = daemon.container_config()
        mount = config.mounts.add(container_path="/image", readonly=True, image_sub_path="bin")
        mount.image.image = IMAGE
        id = daemon.run_container(pod, config)
        assert "busybox" in daemon.exec(id, "ls", "/image")
        (shown,) = daemon.container_status(id).mounts
        assert f"/image-volumes/{pod}/" in shown.host_path
        assert shown.image.image == IMAGE
        again = daemon.container_config()
        again.mounts.add(container_path="/image", readonly=True).image.image = IMAGE
        other = daemon.run_container(pod, again)
        assert "bin" in daemon.exec(other, "ls", "/image")
        for path, problem in (("../x", "path escapes from parent"), ("bin/sh", "only directory subpath")):
            mount.image_sub_path = path
            config.metadata.attempt += 1
            with pytest.raises(grpc.RpcError) as failure:
                daemon.create_container(pod, config)
            assert details(failure).startswith("failed to mount image volume: ImageVolumeMountFailed: ")
            assert problem in details(failure)
        daemon.stop_pod(pod)
        assert not Path(shown.host_path).exists()


def test_users_that_are_not_there(daemon: CriDaemon, pod: str) -> None:
    config = daemon.container_config()
    config.linux.security_context.run_as_username = "nobody-here"
    with pytest.raises(grpc.RpcError) as failure:
        daemon.create_container(pod, config)
    assert failure.value.code() == grpc.StatusCode.UNKNOWN
    assert "no users found" in details(failure)


def test_a_read_only_mount_is_so_all_the_way_down(daemon: CriDaemon, pod: str, tmp_path: Path) -> None:
    config = daemon.container_config()
    config.mounts.add(container_path="/ro", host_path=str(tmp_path), readonly=True, recursive_read_only=True)
    id = daemon.run_container(pod, config)
    request = cri.ExecSyncRequest(container_id=id, cmd=["touch", "/ro/x"], timeout=20)
    assert daemon.runtime.ExecSync(request).exit_code != 0
    assert list(tmp_path.iterdir()) == []


def test_lists_by_pod_label_state_and_id(daemon: CriDaemon, pod: str) -> None:
    config = daemon.container_config(labels={"which": "this"})
    id = daemon.create_container(pod, config)
    for wanted in (
        cri.ContainerFilter(id=id[:20]),
        cri.ContainerFilter(pod_sandbox_id=pod, label_selector={"which": "this"}),
        cri.ContainerFilter(id=id, state=cri.ContainerStateValue(state=cri.CONTAINER_CREATED)),
    ):
        (found,) = daemon.runtime.ListContainers(cri.ListContainersRequest(filter=wanted)).containers
        assert (found.id, found.image_ref) == (id, found.image_id)
        (part,) = daemon.runtime.StreamContainers(cri.StreamContainersRequest(filter=wanted))
        assert [each.id for each in part.containers] == [id]
    other = cri.ContainerFilter(id=id, state=cri.ContainerStateValue(state=cri.CONTAINER_RUNNING))
    assert not daemon.runtime.ListContainers(cri.ListContainersRequest(filter=other)).containers


def test_a_container_that_runs_is_removed(daemon: CriDaemon, pod: str) -> None:
    id = daemon.run_container(pod)
    log = Path(daemon.container_status(id).log_path)
    for _ in range(2):
        daemon.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=id))
    assert not daemon.runtime.ListContainers(cri.ListContainersRequest(filter=cri.ContainerFilter(id=id))).containers
    assert log.exists()


def test_a_container_that_does_not_run_is_not_stopped(daemon: CriDaemon, pod: str) -> None:
    id = daemon.create_container(pod)
    daemon.runtime.StopContainer(cri.StopContainerRequest(container_id=id, timeout=1))
    assert daemon.container_status(id).state == cri.CONTAINER_CREATED
    daemon.start_container(id)
    with pytest.raises(grpc.RpcError) as failure:
        daemon.start_container(id)
    assert "container is in CONTAINER_RUNNING state" in details(failure)


def test_volumes_of_an_image_have_what_the_image_has(daemon: CriDaemon, pod: str, tmp_path: Path) -> None:
    name = "docker.io/library/volumes:1"
    volumes: dict[str, object] = {"/etc": {}, "/absent": {}, "/taken": {}}
    daemon.import_image(
        Archive(tmp_path / "volumes.tar", name, [busybox_layer()], Volumes=volumes, StopSignal="SIGINT")
    )
    config = daemon.container_config()
    config.image.image = name
    config.mounts.add(container_path="/taken", host_path=str(tmp_path), readonly=True)
    id = daemon.run_container(pod, config)
    assert "passwd" in daemon.exec(id, "ls", "/etc")
    places = [line.split()[1] for line in daemon.exec(id, "cat", "/proc/mounts").splitlines()]
    assert {"/etc", "/absent", "/taken"} <= set(places)
    assert "volumes.tar" in daemon.exec(id, "ls", "/taken")
    status = daemon.container_status(id)
    assert [each.container_path for each in status.mounts] == ["/taken"]
    assert status.stop_signal == cri.SIGNAL_SIGINT


def test_a_daemon_that_starts_knows_limits_and_users_and_removes_what_is_left_over(daemon: CriDaemon, pod: str) -> None:
    config = daemon.container_config()
    config.linux.security_context.run_as_user.value = 55
    id = daemon.run_container(pod, config)
    wanted = cri.LinuxContainerResources(memory_limit_in_bytes=64 << 20)
    daemon.runtime.UpdateContainerResources(cri.UpdateContainerResourcesRequest(container_id=id, linux=wanted))
    before = daemon.container_status(id)
    [directory] = daemon.scratch.glob(f"**/containers/{id}/status")
    left_over = directory.parent.parent / ("f" * 64)
    left_over.mkdir()
    daemon.restart()
    assert daemon.container_status(id) == before
    assert not left_over.exists()
    stats = daemon.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=id)).stats
    assert 0 < stats.memory.available_bytes.value < 64 << 20
