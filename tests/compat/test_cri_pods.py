"""Pods by CRI, with Debian's CNI plugins and runc: what the kubelet sees of them (docs/containerd 5.5)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from compat.cri_daemon import CriDaemon
from compat.scratch_daemon import mounts_below, wait_until

from windlass_api.runtime.v1 import api_pb2 as cri

pytestmark = pytest.mark.root

NOBODY = "0" * 64


@contextlib.contextmanager
def refused(code: grpc.StatusCode, words: str) -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code() == code, caught.value.details()
    assert words in str(caught.value.details())


def linux(**namespaces: int) -> cri.LinuxPodSandboxConfig:
    options = cri.NamespaceOption(**namespaces)  # type: ignore[arg-type] # enums by their names
    return cri.LinuxPodSandboxConfig(
        security_context=cri.LinuxSandboxSecurityContext(namespace_options=options),
    )


def namespace_of(pid: int | str, kind: str) -> int:
    return Path(f"/proc/{pid}/ns/{kind}").stat().st_ino


def test_a_pod_and_a_container_run_and_are_gone_when_removed(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod() as pod:
        container = cri_daemon.run_container(pod)
        status = cri_daemon.pod_status(pod).status
        assert status.state == cri.SANDBOX_READY
        assert cri_daemon.container_status(container).state == cri.CONTAINER_RUNNING
        assert cri_daemon.exec(container, "/bin/echo", "hello") == "hello\n"
        assert status.network.ip in cri_daemon.addresses_taken()
    assert not cri_daemon.pods()
    assert not cri_daemon.addresses_taken()
    assert not cri_daemon.attachments()
    assert not [path for path in mounts_below(cri_daemon.scratch) if pod in path]
    assert not list(cri_daemon.root.glob(f"**/{pod}")) and not list(cri_daemon.state.glob(f"**/{pod}"))


# Errors and idempotence (cri-facts 1 to 5)


def test_a_pod_without_metadata_is_refused(cri_daemon: CriDaemon) -> None:
    with refused(grpc.StatusCode.UNKNOWN, "sandbox config must include metadata"):
        cri_daemon.runtime.RunPodSandbox(cri.RunPodSandboxRequest())


def test_metadata_may_be_empty_throughout(cri_daemon: CriDaemon) -> None:
    config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata())
    with cri_daemon.pod(config) as pod:
        with refused(grpc.StatusCode.FAILED_PRECONDITION, f'name "___0" is reserved for "{pod}"'):
            cri_daemon.run_pod(config)
        (item,) = cri_daemon.pods()
        assert item.metadata == cri.PodSandboxMetadata()


def test_a_name_is_reserved_until_its_pod_is_removed(cri_daemon: CriDaemon) -> None:
    config = cri_daemon.pod_config("taken")
    words = 'failed to reserve sandbox name "taken_default_uid-taken_0": name "taken_default_uid-taken_0" is reserved'
    with cri_daemon.pod(config) as pod:
        with refused(grpc.StatusCode.FAILED_PRECONDITION, f'{words} for "{pod}"'):
            cri_daemon.run_pod(config)
        cri_daemon.stop_pod(pod)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, words):
            cri_daemon.run_pod(config)
    with cri_daemon.pod(config) as again:
        assert again != pod


def test_the_next_attempt_of_a_pod_is_another_name(cri_daemon: CriDaemon) -> None:
    config = cri_daemon.pod_config("tried")
    with cri_daemon.pod(config):
        config.metadata.attempt = 1
        with cri_daemon.pod(config) as second:
            assert cri_daemon.pod_status(second).status.metadata.attempt == 1


def test_several_clients_that_want_one_pod_get_the_same(cri_daemon: CriDaemon) -> None:
    config = cri_daemon.pod_config()
    with ThreadPoolExecutor(4) as clients:
        found = [each.result() for each in [clients.submit(cri_daemon.run_pod, config) for _ in range(4)]]
    try:
        assert len(set(found)) == 1
        assert len(cri_daemon.addresses_taken()) == 2
    finally:
        cri_daemon.remove_pod(found[0])


def test_stop_and_remove_may_be_repeated_and_meet(cri_daemon: CriDaemon) -> None:
    pod = cri_daemon.run_pod()
    cri_daemon.run_container(pod)
    with ThreadPoolExecutor(6) as clients:
        calls = [cri_daemon.stop_pod, cri_daemon.remove_pod, cri_daemon.stop_pod] * 2
        for each in [clients.submit(call, pod) for call in calls]:
            each.result()
    assert not cri_daemon.pods() and not cri_daemon.addresses_taken()
    cri_daemon.stop_pod(pod)
    cri_daemon.remove_pod(NOBODY)


def test_an_empty_id_is_refused_everywhere(cri_daemon: CriDaemon) -> None:
    for call in (cri_daemon.stop_pod, cri_daemon.remove_pod, cri_daemon.pod_status):
        with refused(grpc.StatusCode.UNKNOWN, "prefix can't be empty"):
            call("")


def test_a_pod_that_is_not_there_has_no_status(cri_daemon: CriDaemon) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "an error occurred when try to find sandbox: not found"):
        cri_daemon.pod_status(NOBODY)
    with refused(grpc.StatusCode.NOT_FOUND, "failed to find sandbox: not found"):
        request = cri.UpdatePodSandboxResourcesRequest(pod_sandbox_id=NOBODY)
        cri_daemon.runtime.UpdatePodSandboxResources(request)


def test_a_pod_is_found_by_the_beginning_of_its_id(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod() as pod:
        assert cri_daemon.pod_status(pod[:12]).status.id == pod
        assert [each.id for each in cri_daemon.pods(id=pod[:12])] == [pod]
        assert not cri_daemon.pods(id=NOBODY)


def test_lists_are_filtered_by_state_and_labels(cri_daemon: CriDaemon) -> None:
    one = cri_daemon.pod_config(labels={"app": "web", "tier": "front"}, annotations={"note": "kept"})
    with cri_daemon.pod(one) as pod, cri_daemon.pod() as other:
        assert [each.id for each in cri_daemon.pods(label_selector={"app": "web"})] == [pod]
        assert not cri_daemon.pods(label_selector={"app": "web", "tier": "back"})
        cri_daemon.stop_pod(other)
        ready = cri.PodSandboxStateValue(state=cri.SANDBOX_READY)
        assert [each.id for each in cri_daemon.pods(state=ready)] == [pod]
        (item,) = cri_daemon.pods(id=pod)
        assert dict(item.annotations) == {"note": "kept"} and item.created_at > 0
        streamed = cri_daemon.runtime.StreamPodSandboxes(cri.StreamPodSandboxesRequest(), timeout=10)
        assert {each.id for part in streamed for each in part.pod_sandboxes} == {pod, other}


def test_an_unknown_handler_is_refused(cri_daemon: CriDaemon) -> None:
    with refused(grpc.StatusCode.UNKNOWN, 'no runtime for "kata" is configured'):
        cri_daemon.run_pod(handler="kata")


def test_an_untrusted_workload_gets_its_own_handler_or_none(cri_daemon: CriDaemon) -> None:
    annotations = {"io.kubernetes.cri.untrusted-workload": "true"}
    with refused(grpc.StatusCode.UNKNOWN, 'no runtime for "untrusted" is configured'):
        cri_daemon.run_pod(cri_daemon.pod_config(annotations=annotations))
    with refused(grpc.StatusCode.UNKNOWN, "untrusted workload with explicit runtime handler is not allowed"):
        cri_daemon.run_pod(cri_daemon.pod_config(annotations=annotations), handler="runc")
    with refused(grpc.StatusCode.UNKNOWN, "untrusted workload with host access is not allowed"):
        cri_daemon.run_pod(cri_daemon.pod_config(annotations=annotations, linux=linux(ipc=cri.NODE)))


# Namespaces, files, sysctls


def test_containers_of_a_pod_share_its_namespaces(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod(cri_daemon.pod_config(hostname="web-1")) as pod:
        first, second = cri_daemon.run_container(pod), cri_daemon.run_container(pod)
        kinds = ("net", "ipc", "uts", "pid")
        links = [[cri_daemon.exec(each, "/bin/readlink", f"/proc/self/ns/{kind}") for kind in kinds]
                 for each in (first, second)]  # fmt: skip
        assert links[0][:3] == links[1][:3] and links[0][3] != links[1][3]
        assert links[0][0].strip() != os.readlink("/proc/self/ns/net")
        assert cri_daemon.exec(first, "/bin/hostname") == "web-1\n"
        assert cri_daemon.exec(first, "/bin/cat", "/etc/hostname") == "web-1\n"


def test_a_shared_pid_namespace_is_the_pods(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod() as pod:
        config = cri_daemon.container_config()
        config.linux.security_context.namespace_options.pid = cri.POD
        containers = [cri_daemon.run_container(pod, config)]
        config.metadata.name = "second"
        containers.append(cri_daemon.run_container(pod, config))
        found = {cri_daemon.exec(each, "/bin/readlink", "/proc/self/ns/pid") for each in containers}
        assert len(found) == 1 and found != {os.readlink("/proc/self/ns/pid") + "\n"}
        pid = json.loads(cri_daemon.pod_status(pod, verbose=True).info["info"])["pid"]
        assert found == {os.readlink(f"/proc/{pid}/ns/pid") + "\n"}


def test_a_pod_in_the_hosts_namespaces(cri_daemon: CriDaemon) -> None:
    config = cri_daemon.pod_config(linux=linux(network=cri.NODE, pid=cri.NODE, ipc=cri.NODE))
    config.port_mappings.add(host_port=8999, container_port=80)
    with cri_daemon.pod(config) as pod:
        wanted = cri_daemon.container_config()
        wanted.linux.security_context.namespace_options.CopyFrom(
            cri.NamespaceOption(network=cri.NODE, pid=cri.NODE, ipc=cri.NODE)
        )
        container = cri_daemon.run_container(pod, wanted)
        for kind in ("net", "pid", "ipc", "uts"):
            link = cri_daemon.exec(container, "/bin/readlink", f"/proc/self/ns/{kind}").strip()
            assert link == os.readlink(f"/proc/{cri_daemon.pid}/ns/{kind}")
        status = cri_daemon.pod_status(pod).status
        assert status.network == cri.PodSandboxNetworkStatus()
        assert status.linux.namespaces.options.network == cri.NODE
        assert not cri_daemon.addresses_taken()
        assert cri_daemon.exec(container, "/bin/hostname").strip() == socket.gethostname()


def test_a_hostname_on_the_hosts_network_is_refused_and_nothing_is_left(cri_daemon: CriDaemon) -> None:
    config = cri_daemon.pod_config("named", hostname="web", linux=linux(network=cri.NODE))
    with refused(grpc.StatusCode.UNKNOWN, "without a private UTS namespace"):
        cri_daemon.run_pod(config)
    assert not cri_daemon.pods()
    config.hostname = ""
    with cri_daemon.pod(config):
        pass


def test_namespace_options_are_absent_when_no_security_context_was_sent(cri_daemon: CriDaemon) -> None:
    config = cri_daemon.pod_config()
    with cri_daemon.pod(config) as pod:
        status = cri_daemon.pod_status(pod).status
        assert status.linux.HasField("namespaces") and not status.linux.namespaces.HasField("options")


def test_sysctls_are_set_and_pods_may_use_low_ports_and_ping(cri_daemon: CriDaemon) -> None:
    config = cri_daemon.pod_config()
    config.linux.sysctls.update({"net.ipv4.ip_local_port_range": "40000 41000", "kernel.shm_rmid_forced": "1"})
    with cri_daemon.pod(config) as pod:
        container = cri_daemon.run_container(pod)

        def value(name: str) -> str:
            return " ".join(cri_daemon.exec(container, "/bin/cat", f"/proc/sys/{name}").split())

        assert value("net/ipv4/ip_local_port_range") == "40000 41000"
        assert value("kernel/shm_rmid_forced") == "1"
        assert value("net/ipv4/ip_unprivileged_port_start") == "0"
        assert value("net/ipv4/ping_group_range") == "0 2147483647"


def test_a_sysctl_of_the_host_fails_the_pod_and_leaves_nothing(cri_daemon: CriDaemon) -> None:
    config = cri_daemon.pod_config("sysctl")
    config.linux.sysctls["vm.swappiness"] = "10"
    with refused(grpc.StatusCode.UNKNOWN, "vm.swappiness"):
        cri_daemon.run_pod(config)
    assert not cri_daemon.pods() and not cri_daemon.addresses_taken() and not cri_daemon.attachments()
    del config.linux.sysctls["vm.swappiness"]
    with cri_daemon.pod(config):
        pass


def test_files_of_a_pod_are_its_own(cri_daemon: CriDaemon) -> None:
    dns = cri.DNSConfig(servers=["10.0.0.10", "10.0.0.11"], searches=["a.local", "b.local"], options=["ndots:5"])
    with cri_daemon.pod(cri_daemon.pod_config(dns_config=dns)) as pod:
        container = cri_daemon.run_container(pod)
        expected = "search a.local b.local\nnameserver 10.0.0.10\nnameserver 10.0.0.11\noptions ndots:5\n"
        assert cri_daemon.exec(container, "/bin/cat", "/etc/resolv.conf") == expected
        assert cri_daemon.exec(container, "/bin/cat", "/etc/hosts") == Path("/etc/hosts").read_text()
        assert cri_daemon.exec(container, "/bin/hostname").strip() == socket.gethostname()
        (directory,) = cri_daemon.root.glob(f"*/sandboxes/{pod}")
        modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir() if path.is_file()}
        assert modes == {"hostname": 0o644, "hosts": 0o644, "resolv.conf": 0o644}
        mounts = cri_daemon.exec(container, "/bin/cat", "/proc/mounts")
        (shm,) = [line for line in mounts.splitlines() if " /dev/shm " in line]
        assert shm.startswith("shm /dev/shm tmpfs") and "size=65536k" in shm and "noexec" in shm


def test_without_dns_a_pod_has_the_hosts_resolv_conf(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod() as pod:
        container = cri_daemon.run_container(pod)
        assert cri_daemon.exec(container, "/bin/cat", "/etc/resolv.conf") == Path("/etc/resolv.conf").read_text()


# Status


def test_a_stopped_pod_is_not_ready_and_has_no_address(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod() as pod:
        container = cri_daemon.run_container(pod)
        status = cri_daemon.pod_status(pod).status
        assert "." in status.network.ip and [":" in each.ip for each in status.network.additional_ips] == [True]
        cri_daemon.stop_pod(pod)
        status = cri_daemon.pod_status(pod).status
        assert status.state == cri.SANDBOX_NOTREADY and status.network == cri.PodSandboxNetworkStatus()
        ended = cri_daemon.container_status(container)
        assert ended.state == cri.CONTAINER_EXITED and ended.exit_code == 137 and ended.reason == "Error"
        assert not cri_daemon.addresses_taken()
        with refused(grpc.StatusCode.UNKNOWN, "is not running"):
            cri_daemon.create_container(pod)


def test_the_death_of_the_init_makes_a_pod_not_ready(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod() as pod:
        address = cri_daemon.pod_status(pod).status.network.ip
        os.kill(json.loads(cri_daemon.pod_status(pod, verbose=True).info["info"])["pid"], 9)
        assert wait_until(lambda: cri_daemon.pod_status(pod).status.state == cri.SANDBOX_NOTREADY)
        assert cri_daemon.pod_status(pod).status.network.ip == address
    assert not cri_daemon.addresses_taken()


def test_a_verbose_status_has_containerds_keys(cri_daemon: CriDaemon) -> None:
    keys = {
        "pid", "processStatus", "netNamespaceClosed", "image", "snapshotKey", "snapshotter", "runtimeType",
        "runtimeOptions", "config", "runtimeSpec", "cniResult", "sandboxMetadata",
    }  # fmt: skip
    with cri_daemon.pod(cri_daemon.pod_config("verbose")) as pod:
        plain = json.loads(cri_daemon.pod_status(pod).info["info"])
        assert keys <= set(plain) and plain["pid"] == 0 and plain["sandboxMetadata"] is None
        info = json.loads(cri_daemon.pod_status(pod, verbose=True).info["info"])
        assert keys <= set(info)
        assert info["pid"] > 0 and not info["netNamespaceClosed"]
        assert info["runtimeType"] == "io.containerd.runc.v2"
        assert info["config"]["metadata"]["name"] == "verbose"
        assert info["sandboxMetadata"]["Metadata"]["ID"] == pod
        assert cri_daemon.pod_status(pod).status.network.ip in json.dumps(info["cniResult"])
        cri_daemon.stop_pod(pod)
        info = json.loads(cri_daemon.pod_status(pod, verbose=True).info["info"])
        assert info["netNamespaceClosed"] and info["pid"] == 0


def test_changed_resources_of_a_pod_are_kept(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod() as pod:
        request = cri.UpdatePodSandboxResourcesRequest(
            pod_sandbox_id=pod,
            overhead=cri.LinuxContainerResources(cpu_shares=7),
            resources=cri.LinuxContainerResources(memory_limit_in_bytes=1 << 26),
        )
        cri_daemon.runtime.UpdatePodSandboxResources(request, timeout=10)
        cri_daemon.restart()
        info = json.loads(cri_daemon.pod_status(pod, verbose=True).info["info"])
        assert info["overhead"] == {"linux": {"cpu_shares": 7}}
        assert info["resources"] == {"linux": {"memory_limit_in_bytes": 1 << 26}}


def test_status_has_conditions_and_features(cri_daemon: CriDaemon) -> None:
    status = cri_daemon.runtime.Status(cri.StatusRequest(), timeout=20)
    conditions = {each.type: each.status for each in status.status.conditions}
    assert conditions == {"RuntimeReady": True, "NetworkReady": True, "ContainerdHasNoDeprecationWarnings": True}
    assert [each.name for each in status.runtime_handlers] == ["", "runc"]
    assert all(each.features.recursive_read_only_mounts for each in status.runtime_handlers)
    assert status.features.supplemental_groups_policy
    assert not status.info
    info = cri_daemon.runtime.Status(cri.StatusRequest(verbose=True), timeout=20).info
    assert {"config", "cniconfig", "lastCNILoadStatus", "lastCNILoadStatus.default"} <= set(info)
    assert info["lastCNILoadStatus"] == "OK" and "net-cni0" in info["cniconfig"]
    assert "conf_dir" in info["config"]


def test_the_cgroup_driver_is_cgroupfs_unless_runc_is_to_use_systemd(cri_daemon: CriDaemon) -> None:
    found = cri_daemon.runtime.RuntimeConfig(cri.RuntimeConfigRequest(), timeout=10)
    assert found.linux.cgroup_driver == cri.CGROUPFS


# Events (cri-facts 49, 50)


def test_events_of_a_pods_life_reach_also_a_late_subscriber(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod() as pod:
        container = cri_daemon.run_container(pod)
        cri_daemon.stop_pod(pod)
    found: list[cri.ContainerEventResponse] = []
    stream = cri_daemon.subscribe()
    while not found or found[-1].container_id != pod or found[-1].container_event_type != cri.CONTAINER_DELETED_EVENT:
        event = next(stream)
        if event.container_id in (pod, container):
            found.append(event)
    names = {pod: "pod", container: "container"}
    told = [f"{names[each.container_id]} {cri.ContainerEventType.Name(each.container_event_type)}" for each in found]
    assert told == [
        "pod CONTAINER_CREATED_EVENT",
        "pod CONTAINER_STARTED_EVENT",
        "container CONTAINER_CREATED_EVENT",
        "container CONTAINER_STARTED_EVENT",
        "container CONTAINER_STOPPED_EVENT",
        "pod CONTAINER_STOPPED_EVENT",
        "container CONTAINER_DELETED_EVENT",
        "pod CONTAINER_DELETED_EVENT",
    ]
    for event in found[:2]:
        assert event.pod_sandbox_status.state == cri.SANDBOX_READY and not event.containers_statuses
        assert event.pod_sandbox_status.network.ip
    assert [each.id for each in found[3].containers_statuses] == [container]
    assert found[3].containers_statuses[0].state == cri.CONTAINER_RUNNING
    assert found[4].containers_statuses[0].state == cri.CONTAINER_EXITED
    assert found[-1].pod_sandbox_status.id == pod and not found[-1].pod_sandbox_status.network.ip
    assert not found[-1].containers_statuses
    assert all(each.created_at > 0 for each in found)
