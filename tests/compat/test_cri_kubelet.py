"""A kubelet's requests, as kubelet 1.36.2 was recorded to send them, while the daemon crashes in between."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from compat.cri_daemon import IMAGE, CriDaemon
from compat.scratch_daemon import wait_until

from windlass_api.runtime.v1 import api_pb2 as cri

pytestmark = pytest.mark.root

MASKED = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
MEBIBYTE = 1 << 20
UNTIL_TERM = "trap 'echo bye > /dev/termination-log; exit 4' TERM; while sleep 0.1; do :; done"
COUNT = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo n-$i; sleep 0.01; done; sleep 1000"


class Kubelet:
    """What a kubelet keeps of one pod, and sends for it."""

    def __init__(self, daemon: CriDaemon, name: str) -> None:
        self.daemon = daemon
        self.labels = {"io.kubernetes.pod.name": name, "io.kubernetes.pod.uid": f"uid-{name}"}
        self.files = daemon.scratch / f"kubelet-{name}"
        self.files.mkdir()
        for file in ("etc-hosts", "termination-log"):
            (self.files / file).touch(mode=0o666)
        self.config = self._pod_config(name)
        self.log = Path(self.config.log_directory, "c", "0.log")
        self.log.parent.mkdir(parents=True)
        self.pod = daemon.run_pod(self.config)

    def _pod_config(self, name: str) -> cri.PodSandboxConfig:
        config = self.daemon.pod_config(name, hostname=name, labels=self.labels)
        config.annotations.update({"kubernetes.io/config.source": "file", "kubernetes.io/config.hash": "f0db2a91"})
        config.dns_config.servers.append("127.0.0.1")
        config.dns_config.searches.append(".")
        config.linux.overhead.SetInParent()
        config.linux.resources.CopyFrom(_limits())
        config.linux.security_context.seccomp.SetInParent()
        options = config.linux.security_context.namespace_options
        options.pid, options.userns_options.mode = cri.CONTAINER, cri.NODE
        return config

    def run(self, script: str) -> str:
        """Create and start the container; its image is named by its ID."""
        found = self.daemon.images.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=IMAGE)), timeout=20)
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="c"),
            image=cri.ImageSpec(image=found.image.id, user_specified_image=IMAGE),
            command=["/bin/sh", "-c", script],
            labels={**self.labels, "io.kubernetes.container.name": "c"},
            annotations={"io.kubernetes.container.restartCount": "0"},
            log_path="c/0.log",
        )
        for inside, file in (("/etc/hosts", "etc-hosts"), ("/dev/termination-log", "termination-log")):
            config.mounts.add(container_path=inside, host_path=str(self.files / file))
        config.linux.resources.CopyFrom(_limits())
        config.linux.resources.oom_score_adj = 999
        config.linux.resources.memory_swap_limit_in_bytes = 64 * MEBIBYTE
        for size in ("2MB", "1GB"):
            config.linux.resources.hugepage_limits.add(page_size=size)
        security = config.linux.security_context
        security.namespace_options.CopyFrom(self.config.linux.security_context.namespace_options)
        security.run_as_user.SetInParent()
        security.masked_paths.extend(MASKED)
        security.readonly_paths.extend(READ_ONLY)
        security.seccomp.profile_type = cri.SecurityProfile.Unconfined
        request = cri.CreateContainerRequest(pod_sandbox_id=self.pod, config=config, sandbox_config=self.config)
        container = self.daemon.runtime.CreateContainer(request, timeout=60).container_id
        self.daemon.start_container(container)
        return container

    def listed(self) -> list[tuple[str, int]]:
        """List its containers as the kubelet does when it looks whether something has changed."""
        chosen = cri.ContainerFilter(label_selector={"io.kubernetes.pod.uid": self.labels["io.kubernetes.pod.uid"]})
        found = self.daemon.runtime.ListContainers(cri.ListContainersRequest(filter=chosen), timeout=20)
        return [(each.id, each.state) for each in found.containers]

    def remove(self) -> None:
        """Stop the pod and remove its containers, then the pod."""
        self.daemon.stop_pod(self.pod)
        for id, _ in self.listed():
            self.daemon.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=id), timeout=60)
        self.daemon.remove_pod(self.pod)


def _limits() -> cri.LinuxContainerResources:
    return cri.LinuxContainerResources(
        cpu_period=100000, cpu_quota=50000, cpu_shares=102, memory_limit_in_bytes=64 * MEBIBYTE
    )


def test_a_pod_s_life_with_crashes_in_between(cri_daemon: CriDaemon) -> None:
    """The kubelet restarts a container whose ID, start or state is another one than before."""
    kubelet = Kubelet(cri_daemon, "life")
    container = kubelet.run(UNTIL_TERM)
    before, listed = cri_daemon.container_status(container), kubelet.listed()
    assert listed == [(container, cri.CONTAINER_RUNNING)]
    assert before.resources.linux.memory_limit_in_bytes == 64 * MEBIBYTE
    assert before.image.image == IMAGE  # a name, also where the request has an ID
    pod = cri_daemon.pod_status(kubelet.pod).status
    for _ in range(2):
        cri_daemon.restart()
        assert kubelet.listed() == listed
        assert cri_daemon.container_status(container) == before
        assert cri_daemon.pod_status(kubelet.pod).status == pod
        assert cri_daemon.exec(container, "/bin/cat", "/proc/interrupts", "/etc/hosts") == ""
    stop = cri.StopContainerRequest(container_id=container, timeout=30)
    cri_daemon.runtime.StopContainer(stop, timeout=60)
    after = cri_daemon.container_status(container)
    assert (after.state, after.exit_code, after.reason) == (cri.CONTAINER_EXITED, 4, "Error")
    assert (kubelet.files / "termination-log").read_text() == "bye\n"
    cri_daemon.restart()
    assert cri_daemon.container_status(container) == after
    kubelet.remove()
    assert kubelet.listed() == []
    assert kubelet.pod not in [each.id for each in cri_daemon.pods()]


def test_a_rotated_log_has_every_line_over_crashes(cri_daemon: CriDaemon) -> None:
    """The kubelet renames a log, then asks for a new one; the daemon may crash before, between and after."""
    kubelet = Kubelet(cri_daemon, "rotates")
    container = kubelet.run(COUNT)
    parts = []
    for turn in range(3):
        assert wait_until(lambda: kubelet.log.exists() and kubelet.log.stat().st_size > 500)
        parts.append(kubelet.log.rename(kubelet.log.with_name(f"0.log.{turn}")))
        if turn:
            cri_daemon.restart()
        request = cri.ReopenContainerLogRequest(container_id=container)
        cri_daemon.runtime.ReopenContainerLog(request, timeout=20)
    cri_daemon.restart()
    assert wait_until(lambda: "n-400\n" in kubelet.log.read_text())
    text = "".join(path.read_text() for path in (*parts, kubelet.log))
    assert [int(each) for each in re.findall(r" n-(\d+)$", text, re.MULTILINE)] == list(range(1, 401))
    kubelet.remove()


def test_usage_has_the_pod_s_network(cri_daemon: CriDaemon) -> None:
    """A kubelet with the feature PodAndContainerStatsFromCRI reads here what cAdvisor has of pause containers."""
    kubelet = Kubelet(cri_daemon, "usage")
    container = kubelet.run(UNTIL_TERM)
    found = cri_daemon.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest(), timeout=20).stats
    usage = next(each for each in found if each.attributes.id == kubelet.pod).linux
    assert usage.network.default_interface.name == "eth0"
    assert usage.network.default_interface.HasField("rx_bytes")
    assert [each.attributes.id for each in usage.containers] == [container]
    assert usage.process.process_count.value >= 1
    kubelet.remove()
