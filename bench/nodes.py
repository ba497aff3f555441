"""Two nodes without a kubelet: Windlass and containerd with CRI, each in a network and a control group of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from daemons import DEMO_IMAGE, IMAGE, READY_TIMEOUT, Daemon, remove_cgroups, remove_tree

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_api.runtime.v1.api_pb2_grpc import ImageServiceStub, RuntimeServiceStub
from windlass_linux import netns

PAUSE = "example.org/pause:1"
PLUGINS = Path("/usr/lib/cni")
TIMEOUT = 120.0
SLEEP = ("/bin/sleep", "86399")
PSS = re.compile(rb"^Pss: +(\d+) kB", re.MULTILINE)

WINDLASS = """\
version = 4
root = "{place}/root"
state = "{place}/state"
[plugins."io.containerd.server.v1.grpc"]
address = "{place}/d.sock"
[plugins."io.containerd.server.v1.ttrpc"]
address = "{place}/t.sock"
[plugins."io.containerd.nri.v1.nri"]
disable = true
"""
CONTAINERD = """\
version = 3
root = "{place}/root"
state = "{place}/state"
[grpc]
address = "{place}/d.sock"
[ttrpc]
address = "{place}/t.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{place}/opt"
[plugins."io.containerd.nri.v1.nri"]
disable = true
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"
"""
CRI = """\
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
conf_dir = "{place}/net.d"
bin_dirs = ["{plugins}"]
"""


def network(place: Path) -> tuple[dict[str, str], list[dict[str, object]]]:
    """Return version and name of a node's network, and its plugins: a bridge with addresses, ports of the host."""
    ipam = {"type": "host-local", "dataDir": f"{place}/leases", "ranges": [[{"subnet": "10.199.0.0/16"}]]}
    plugins: list[dict[str, object]] = [
        {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": False},
    ]
    return {"cniVersion": "1.0.0", "name": f"net-{place.name}"}, plugins


class Node:
    """A daemon with CRI; `processor` and `weight` are of all its processes, and those of its pods."""

    def __init__(self, name: str, program: str, config: str, place: Path, path: str) -> None:
        self.name = name
        self.place = place
        self.group = f"bench-cri-{name}-{os.getpid()}"
        accounts = Path("/sys/fs/cgroup/cpuacct")
        self._account = (accounts if accounts.is_dir() else accounts.parent) / self.group
        (self._account / "daemon").mkdir(parents=True)
        self._pods: dict[str, cri.PodSandboxConfig] = {}
        self.host = place / "host"
        netns.create(self.host)
        (place / "net.d").mkdir()
        head, plugins = network(place)
        (place / "net.d/10-bridge.conflist").write_text(json.dumps({**head, "plugins": plugins}))
        (place / "config.toml").write_text((config + CRI).format(place=place, plugins=PLUGINS, pause=PAUSE))
        enter = f"echo $$ > {self._account}/daemon/cgroup.procs && exec nsenter --net={self.host} {program} -c "
        # Compiled modules are kept, as an installation has them, whatever the environment of the benchmark says.
        compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": f"{place}/compiled"}
        self.daemon = Daemon(name, ["sh", "-c", f"{enter}{place}/config.toml"], place, {"PATH": path, **compiled})
        self.connect()

    def connect(self) -> None:
        """Connect to the daemon that runs now."""
        options = (("grpc.default_authority", "localhost"),)
        self._channel = grpc.insecure_channel(f"unix:{self.daemon.address}", options=options)
        self.runtime, self.images = RuntimeServiceStub(self._channel), ImageServiceStub(self._channel)

    def disconnect(self) -> None:
        """End the connection."""
        self._channel.close()

    def load(self, archive: Path, image: str) -> None:
        """Import an image, and wait until CRI has it."""
        ctr = ["ctr", "--address", self.daemon.address, "--namespace", "k8s.io", "images", "import", str(archive)]
        subprocess.run(ctr, check=True, capture_output=True, timeout=TIMEOUT)
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=image))
        end = time.monotonic() + READY_TIMEOUT
        while not self.images.ImageStatus(request, timeout=TIMEOUT, wait_for_ready=True).image.id:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name} does not know image {image}")
            time.sleep(0.05)

    def run_pod(self, name: str, *, host: bool = False, port: int = 0, group: str = "") -> str:
        """Run a pod and return its ID."""
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, namespace="bench", uid=f"uid-{name}"),
            hostname="" if host else name,
            log_directory=f"{self.place}/logs/{name}",
            labels={"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "bench", "app": "bench"},
            annotations={"kubernetes.io/config.source": "api", "kubernetes.io/config.seen": "2026-01-01T00:00:00Z"},
        )
        config.dns_config.servers.append("10.96.0.10")
        config.linux.cgroup_parent = f"/{self.group}/pods/{group}".rstrip("/")
        config.linux.security_context.namespace_options.network = cri.NODE if host else cri.POD
        config.linux.security_context.namespace_options.pid = cri.CONTAINER
        if port:
            config.port_mappings.add(container_port=80, host_port=port)
        pod = self.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config), timeout=TIMEOUT).pod_sandbox_id
        self._pods[pod] = config
        return pod

    def run_container(self, pod: str, name: str = "c") -> str:
        """Create a sleeping container, start it, and return its ID."""
        id = self.create_container(pod, name)
        self.runtime.StartContainer(cri.StartContainerRequest(container_id=id), timeout=TIMEOUT)
        return id

    def create_container(self, pod: str, name: str) -> str:
        """Create a sleeping container and return its ID."""
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image=IMAGE),
            command=SLEEP,
            log_path=f"{name}/0.log",
            labels={"io.kubernetes.container.name": name, "app": "bench"},
        )
        config.linux.security_context.namespace_options.pid = cri.CONTAINER
        config.linux.resources.cpu_shares = 100
        request = cri.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=self._pods[pod])
        return self.runtime.CreateContainer(request, timeout=TIMEOUT).container_id

    def run_full_pod(self, name: str) -> str:
        """Run a pod with a container, and return its ID."""
        pod = self.run_pod(name)
        self.run_container(pod)
        return pod

    def remove_pod(self, pod: str) -> None:
        """Stop a pod and remove it, as the kubelet does."""
        self.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=TIMEOUT)
        self.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod), timeout=TIMEOUT)

    def running(self) -> int:
        """Return how many containers run."""
        listed = self.runtime.ListContainers(cri.ListContainersRequest(), timeout=TIMEOUT, wait_for_ready=True)
        return sum(each.state == cri.CONTAINER_RUNNING for each in listed.containers)

    def ready(self) -> bool:
        """Tell whether pods can run, and have a network."""
        status = self.runtime.Status(cri.StatusRequest(), timeout=TIMEOUT, wait_for_ready=True).status
        conditions = {each.type: each.status for each in status.conditions}
        return conditions["RuntimeReady"] and conditions["NetworkReady"]

    def processor(self) -> float:
        """Return the seconds that the daemon, its pods and what they executed have used."""
        usage = self._account / "cpuacct.usage"
        if usage.exists():
            return int(usage.read_text()) / 1e9
        return int((self._account / "cpu.stat").read_text().split()[1]) / 1e6

    def weight(self) -> float:
        """Return the PSS of all processes but the workloads, in megabytes."""
        total = 0
        for pid in self._processes():
            with contextlib.suppress(OSError):
                if "\0".join(SLEEP).encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    total += sum(map(int, PSS.findall(Path(f"/proc/{pid}/smaps_rollup").read_bytes())))
        return total / 1024

    def _processes(self) -> Iterator[int]:
        for path in self._account.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                yield from map(int, path.read_text().split())

    def stop(self) -> None:
        """Remove all pods, and the daemon, and what a failure has left."""
        with contextlib.suppress(grpc.RpcError, ValueError):  # a channel that is closed is a ValueError
            pods = self.runtime.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=TIMEOUT).items
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda pod: self.remove_pod(pod.id), pods))
        self.disconnect()
        self.daemon.stop()
        for pid in list(self._processes()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        netns.remove(self.host)
        end = time.monotonic() + READY_TIMEOUT
        while self._account.exists() and time.monotonic() < end:
            remove_cgroups(self.group)
            time.sleep(0.1)


def images(scratch: Path) -> None:
    """Write the image of all containers, and that by which containerd's pods are held: a static program that sleeps."""

    def demo_image(*arguments: str) -> str:
        command = [sys.executable, str(DEMO_IMAGE), *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    demo_image(f"{scratch}/image.tar", IMAGE)
    demo_image(f"{scratch}/pause.tar", PAUSE, demo_image("--busybox"), "/bin/sleep", "86398")


@contextlib.contextmanager
def nodes(scratch: Path, containerd: Path | None) -> Iterator[list[Node]]:
    """Run Windlass, and containerd of a directory if there is one; afterwards nothing of them is left."""
    with contextlib.ExitStack() as stack:
        stack.callback(remove_tree, scratch)
        images(scratch)
        program = Path(sys.executable).with_name("windlassd")
        wanted: list[tuple[str, str, str, str]] = [("windlass", str(program), WINDLASS, os.environ["PATH"])]
        if containerd is not None:
            path = f"{containerd}:{os.environ['PATH']}"
            wanted.append(("containerd", f"{containerd}/containerd", CONTAINERD, path))
        started = [_start(stack, scratch, *each) for each in wanted]
        yield started


def _start(stack: contextlib.ExitStack, scratch: Path, name: str, program: str, config: str, path: str) -> Node:
    place = scratch / name
    place.mkdir()
    node = Node(name, program, config, place, path)
    stack.callback(node.stop)
    node.load(scratch / "image.tar", IMAGE)
    if name == "containerd":
        node.load(scratch / "pause.tar", PAUSE)
    return node


def each_in_turn(wanted: Sequence[Node], rounds: int) -> Iterator[tuple[int, Node]]:
    """Yield the nodes by turns, the first of a round being the second of the next."""
    order = list(wanted)
    for number in range(rounds):
        order.append(order.pop(0))
        for node in order:
            yield number, node
