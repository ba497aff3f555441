"""A windlassd with CRI, in a network namespace that stands for the host, with Debian's CNI plugins and runc."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import groups
import grpc
import pytest
from compat.images import Archive, busybox_layer
from compat.machines import oci_runtime
from compat.scratch_daemon import WINDLASSD, ScratchDaemon, wait_until

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_api.runtime.v1 import api_pb2_grpc
from windlass_conformance.boxes import BUSYBOX
from windlass_linux import netns

IMAGE = "docker.io/library/busybox:1"
PLUGINS = Path("/usr/lib/cni")
WINDLASS = Path(sys.executable).with_name("windlass")
SLEEP = ("/bin/sleep", "1000")
NRI = "io.containerd.nri.v1.nri"
_numbers = itertools.count()


def require_cri_tools() -> None:
    """Skip, naming what is missing."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, mounts and control groups")
    if not (PLUGINS / "bridge").exists():
        pytest.skip("CNI plugins are not installed; apt install containernetworking-plugins")
    for tool, package in (("runc", "runc"), ("nsenter", "util-linux"), ("iptables", "iptables")):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; apt install {package}")
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed; apt install busybox-static")


class CriDaemon(ScratchDaemon):
    """A daemon that pods are run in; ``host`` is the network namespace that it takes for the host's."""

    def __init__(self, scratch: Path, runtime: str = "", more: str = "", cni: str = "") -> None:
        """``runtime`` and ``cni`` are further lines of CRI's runtime block and its table, ``more`` further tables."""
        self.host = scratch / "host"
        config = scratch / "config.toml"
        super().__init__(scratch, arguments=["--config", str(config)])
        self.program = ["nsenter", f"--net={self.host}", str(WINDLASSD)]
        self.networks = scratch / "net.d"
        self.plugins = scratch / "bin"
        self.results = scratch / "results"
        self.leases = scratch / "leases"
        self.logs = scratch / "logs"
        for directory in (self.networks, self.plugins, self.logs):
            directory.mkdir()
        for plugin in PLUGINS.iterdir():
            (self.plugins / plugin.name).symlink_to(plugin)
        self.write_network()
        config.write_text(
            f'version = 4\n[plugins."io.containerd.cri.v1.runtime"]\n'
            f'restrict_oom_score_adj = true\ncni_cache_dir = "{self.results}"\n{runtime}\n'
            f'[plugins."io.containerd.cri.v1.runtime".cni]\nconf_dir = "{self.networks}"\n'
            f'bin_dirs = ["{self.plugins}"]\n{cni}\n{"" if NRI in more else self._nri()}{more}\n{oci_runtime()}\n'
        )
        self._channel: grpc.Channel | None = None

    def _nri(self) -> str:
        """Return a table that keeps the daemon's socket for plugins apart from that of the machine."""
        return f'[plugins."{NRI}"]\nsocket_path = "{self.scratch}/n.sock"\n'

    def write_network(self, name: str = "10-bridge", bridge: str = "cni0", net: int = 199, **more: object) -> None:
        """Configure a network: a bridge, addresses of both families, port mappings."""
        ranges = [[{"subnet": f"10.{net}.0.0/16"}], [{"subnet": f"fd{net % 100:02}::/64"}]]
        ipam = {"type": "host-local", "dataDir": str(self.leases), "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
        plugins = [
            {"type": "bridge", "bridge": bridge, "isGateway": True, "hairpinMode": True, "ipam": ipam},
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": False},
        ]
        document = {"cniVersion": "1.0.0", "name": f"net-{bridge}", "plugins": plugins, **more}
        temporary = self.networks / f".{name}"
        temporary.write_text(json.dumps(document))
        temporary.rename(self.networks / f"{name}.conflist")

    def start(self) -> None:
        """Start it, in its namespace, which is made for the first time."""
        groups.shared("k8s.io")
        if not self.host.exists():
            netns.create(self.host)
        super().start()

    def load_image(self) -> None:
        """Import the image that containers are made of."""
        self.import_image(Archive(self.scratch / "image.tar", IMAGE, [busybox_layer()]))
        assert wait_until(lambda: self.images.ImageStatus(_image_request()).image.id)

    def import_image(self, archive: Archive) -> None:
        """Import an image."""
        command = [str(WINDLASS), "--address", str(self.address), "--namespace", "k8s.io", "image", "import"]
        subprocess.run([*command, str(archive.path)], check=True, capture_output=True, timeout=60)

    def kill(self) -> None:
        """End it as a crash would."""
        self._disconnect()
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)

    def restart(self) -> None:
        """Crash, and start again."""
        self.kill()
        self.start()

    def stop(self) -> int:
        """Stop it as an operator would."""
        self._disconnect()
        return super().stop()

    def _disconnect(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @property
    def connection(self) -> grpc.Channel:
        """A channel to the daemon that runs now."""
        if self._channel is None:
            self._channel = grpc.insecure_channel(f"unix:{self.address}")
        return self._channel

    @property
    def runtime(self) -> api_pb2_grpc.RuntimeServiceStub:
        """The runtime service."""
        return api_pb2_grpc.RuntimeServiceStub(self.connection)

    @property
    def images(self) -> api_pb2_grpc.ImageServiceStub:
        """The image service."""
        return api_pb2_grpc.ImageServiceStub(self.connection)

    def pod_config(self, name: str = "", **fields: object) -> cri.PodSandboxConfig:
        """Return the configuration of a pod with a name of its own; its control group is the tests'."""
        name = name or f"pod{next(_numbers)}"
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, namespace="default", uid=f"uid-{name}"),
            log_directory=str(self.logs / name),
            linux=cri.LinuxPodSandboxConfig(cgroup_parent=f"/{groups.NAME}"),
        )
        config.MergeFrom(cri.PodSandboxConfig(**fields))  # type: ignore[arg-type] # fields by their names
        return config

    def run_pod(self, config: cri.PodSandboxConfig | None = None, handler: str = "") -> str:
        """Run a pod and return its ID."""
        request = cri.RunPodSandboxRequest(config=config or self.pod_config(), runtime_handler=handler)
        return self.runtime.RunPodSandbox(request, timeout=60).pod_sandbox_id

    def stop_pod(self, id: str) -> None:
        """Stop a pod."""
        self.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=id), timeout=60)

    def remove_pod(self, id: str) -> None:
        """Remove a pod."""
        self.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=id), timeout=60)

    @contextlib.contextmanager
    def pod(self, config: cri.PodSandboxConfig | None = None, handler: str = "") -> Iterator[str]:
        """Run a pod, which is gone afterwards."""
        id = self.run_pod(config, handler)
        try:
            yield id
        finally:
            self.remove_pod(id)

    def pod_status(self, id: str, verbose: bool = False) -> cri.PodSandboxStatusResponse:
        """Describe a pod."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=id, verbose=verbose)
        return self.runtime.PodSandboxStatus(request, timeout=20)

    def pods(self, **wanted: object) -> list[cri.PodSandbox]:
        """List pods."""
        chosen = cri.PodSandboxFilter(**wanted)  # type: ignore[arg-type] # fields by their names
        # A client that called while the daemon was down has left the channel waiting before its next attempt.
        return list(
            self.runtime.ListPodSandbox(cri.ListPodSandboxRequest(filter=chosen), timeout=60, wait_for_ready=True).items
        )

    def container_config(self, command: Sequence[str] = SLEEP, name: str = "", **fields: object) -> cri.ContainerConfig:
        """Return the configuration of a container with a PID namespace of its own, and a log."""
        name = name or f"c{next(_numbers)}"
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image=IMAGE),
            command=command,
            log_path=f"{name}.log",
        )
        config.linux.security_context.namespace_options.pid = cri.CONTAINER
        config.MergeFrom(cri.ContainerConfig(**fields))  # type: ignore[arg-type] # fields by their names
        return config

    def create_container(self, pod: str, config: cri.ContainerConfig | None = None) -> str:
        """Create a container and return its ID."""
        request = cri.CreateContainerRequest(pod_sandbox_id=pod, config=config or self.container_config())
        return self.runtime.CreateContainer(request, timeout=60).container_id

    def start_container(self, id: str) -> None:
        """Start a container."""
        self.runtime.StartContainer(cri.StartContainerRequest(container_id=id), timeout=60)

    def run_container(self, pod: str, config: cri.ContainerConfig | None = None) -> str:
        """Create and start a container."""
        id = self.create_container(pod, config)
        self.start_container(id)
        return id

    def container_status(self, id: str) -> cri.ContainerStatus:
        """Describe a container."""
        request = cri.ContainerStatusRequest(container_id=id)
        return self.runtime.ContainerStatus(request, timeout=20).status

    def subscribe(self) -> Iterator[cri.ContainerEventResponse]:
        """Yield events, those that are kept first; the stream ends with the connection."""
        return iter(self.runtime.GetContainerEvents(cri.GetEventsRequest(), timeout=30))

    def exec(self, container: str, *command: str) -> str:
        """Return what a command prints in a container."""
        request = cri.ExecSyncRequest(container_id=container, cmd=command, timeout=20)
        done = self.runtime.ExecSync(request, timeout=40)
        assert done.exit_code == 0, (done.exit_code, done.stdout, done.stderr)
        return done.stdout.decode()

    def on_host(self, *command: str) -> str:
        """Return what a command prints in the host's network namespace."""
        inside = ["nsenter", f"--net={self.host}", *command]
        return subprocess.run(inside, check=True, capture_output=True, text=True, timeout=30).stdout

    def addresses_taken(self) -> list[str]:
        """Return the addresses that host-local has given out."""
        return sorted(path.name for path in self.leases.glob("*/*") if path.name[0].isdigit() or ":" in path.name)

    def attachments(self) -> list[Mapping[str, object]]:
        """Return CNI's cached results."""
        return [json.loads(path.read_text()) for path in self.results.glob("[!.]*")] if self.results.exists() else []

    def close(self) -> None:
        """Remove all pods, stop it, and remove what a failure has left."""
        try:
            if self._process is not None:
                if self._process.poll() is not None:
                    self.start()
                for pod in self.pods():
                    self.remove_pod(pod.id)
        except (grpc.RpcError, AssertionError):
            pass  # it is removed below
        finally:
            try:
                super().close()
            finally:
                self._disconnect()
                self._remove_remains()

    def _remove_remains(self) -> None:
        """End the processes of the host and of its pods, by their network namespaces; remove those."""
        places = [self.host, *(Path(str(each.get("netns", ""))) for each in self.attachments())]
        there = [path for path in places if netns.is_there(path)]
        wanted = {path.stat().st_ino for path in there}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "ns/net").stat().st_ino in wanted:
                    os.kill(int(entry.name), signal.SIGKILL)
        for path in there:
            netns.remove(path)


def _image_request() -> cri.ImageStatusRequest:
    return cri.ImageStatusRequest(image=cri.ImageSpec(image=IMAGE))


@contextlib.contextmanager
def running_cri(directory: Path, runtime: str = "", more: str = "", cni: str = "") -> Iterator[CriDaemon]:
    """Yield a daemon that has the image; all of it is gone afterwards."""
    require_cri_tools()
    daemon = CriDaemon(directory, runtime, more, cni)
    try:
        daemon.start()
        daemon.load_image()
        yield daemon
    finally:
        daemon.close()
