"""Metrics and usage of pods that run, by gRPC."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from compat.cri_daemon import CriDaemon, running_cri

from windlass_api.runtime.v1 import api_pb2 as cri

BUSY = ("/bin/sh", "-c", "while :; do :; done")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriDaemon]:
    """A daemon for all tests."""
    with running_cri(tmp_path_factory.mktemp("cri")) as made:
        yield made


@pytest.fixture
def pod(daemon: CriDaemon) -> Iterator[str]:
    with daemon.pod() as id:
        yield id


def metrics(daemon: CriDaemon) -> dict[str, cri.PodSandboxMetrics]:
    found = daemon.runtime.ListPodSandboxMetrics(cri.ListPodSandboxMetricsRequest(), timeout=30).pod_metrics
    return {each.pod_sandbox_id: each for each in found}


def test_every_metric_is_described(daemon: CriDaemon, pod: str) -> None:
    config = daemon.container_config()
    config.image.user_specified_image = "busybox"
    config.linux.resources.cpu_shares = 100
    config.linux.resources.memory_limit_in_bytes = 64 << 20
    id = daemon.run_container(pod, config)
    described = daemon.runtime.ListMetricDescriptors(cri.ListMetricDescriptorsRequest(), timeout=20).descriptors
    keys = {each.name: list(each.label_keys) for each in described}
    assert len(keys) == 49
    found = metrics(daemon)[pod]
    (container,) = found.container_metrics
    for each in (*found.metrics, *container.metrics):
        labels = dict(zip(keys[each.name], each.label_values, strict=True))
        assert labels["namespace"] == "default"
        assert labels["pod"].startswith("pod")
    assert container.container_id == id
    values = {each.name: each.value.value for each in container.metrics}
    assert values["container_memory_usage_bytes"] > 0
    assert values["container_processes"] == 1
    assert values["container_file_descriptors"] > 0
    assert values["container_spec_memory_limit_bytes"] == 64 << 20
    assert values["container_fs_limit_bytes"] > values["container_fs_usage_bytes"]
    assert abs(values["container_start_time_seconds"] - time.time()) < 60
    assert list(container.metrics[0].label_values[2:]) == [config.metadata.name, id, "busybox"]
    network = {each.name: each for each in found.metrics}
    assert network["container_network_receive_bytes_total"].value.value > 0
    assert list(network["container_network_receive_bytes_total"].label_values[2:]) == ["", pod, "", "eth0"]


def test_containers_that_do_not_run_and_pods_that_are_stopped_are_left_out(daemon: CriDaemon, pod: str) -> None:
    daemon.create_container(pod)
    assert not metrics(daemon)[pod].container_metrics
    daemon.stop_pod(pod)
    assert pod not in metrics(daemon)


def test_a_pod_in_the_hosts_network_has_no_network_metrics(daemon: CriDaemon) -> None:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.network = cri.NODE
    with daemon.pod(config) as pod:
        daemon.run_container(pod)
        found = metrics(daemon)[pod]
        assert (len(found.metrics), len(found.container_metrics)) == (0, 1)


def test_metrics_in_parts(daemon: CriDaemon, pod: str) -> None:
    parts = list(daemon.runtime.StreamPodSandboxMetrics(cri.StreamPodSandboxMetricsRequest(), timeout=20))
    assert [each.pod_sandbox_id for part in parts for each in part.pod_sandbox_metrics] == [pod]


def test_a_busy_container_shows_how_busy_it_is(daemon: CriDaemon, pod: str) -> None:
    """Not with the first question, after which sampling begins, and soon with a later one."""
    id = daemon.run_container(pod, daemon.container_config(BUSY))

    def cores() -> cri.UInt64Value | None:
        cpu = daemon.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=id), timeout=20).stats.cpu
        return cpu.usage_nano_cores if cpu.HasField("usage_nano_cores") else None

    deadline = time.monotonic() + 30
    while (seen := cores()) is None or not seen.value:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    chosen = cri.PodSandboxStatsFilter(id=pod)
    (listed,) = daemon.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest(filter=chosen), timeout=20).stats
    assert listed.linux.containers[0].cpu.usage_nano_cores.value > 0
    assert listed.linux.process.process_count.value == 1


def test_metrics_after_a_restart_are_those_of_before(daemon: CriDaemon, pod: str) -> None:
    config = daemon.container_config()
    config.linux.resources.cpu_shares = 77
    id = daemon.run_container(pod, config)
    daemon.restart()
    (container,) = metrics(daemon)[pod].container_metrics
    values = {each.name: each.value.value for each in container.metrics}
    assert (container.container_id, values["container_spec_cpu_shares"]) == (id, 77)
