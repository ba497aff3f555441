"""CRI in one piece: pods, containers, images, and the streaming server, from start to stop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from windlass.config import durations
from windlass.contracts.events import Exchange
from windlass.contracts.metadata import Metadata
from windlass.contracts.sandboxes import SandboxController
from windlass.contracts.transfer import Transferrer
from windlass.errors import Error, Unavailable, Unknown
from windlass.hooks import Hooks
from windlass.records import dataclass
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.checkpoints.checkpoints import Checkpoints
from windlass_cri.checkpoints.restores import Restores
from windlass_cri.config import ImagesConfig, RuntimeConfig, ServerConfig
from windlass_cri.containers.containers import Containers
from windlass_cri.containers.execs import Execs
from windlass_cri.containers.info import container_info
from windlass_cri.containers.ooms import OomWatch
from windlass_cri.events import Events
from windlass_cri.hooks.domain import PodDomain
from windlass_cri.hooks.steps import PodSteps
from windlass_cri.images.diskusage import DiskUsage
from windlass_cri.images.images import Images
from windlass_cri.images.pulls import From, Pulls
from windlass_cri.pods.handlers import Handlers
from windlass_cri.pods.network import NAMESPACES, PodNetwork
from windlass_cri.pods.pods import Pods
from windlass_cri.pods.provision import Provision
from windlass_cri.pods.sysctls import closed_by_default
from windlass_cri.record import NAMESPACE, Container, Pod
from windlass_cri.spec.selinux import Selinux
from windlass_cri.stats.metrics import Metrics
from windlass_cri.stats.stats import Stats
from windlass_cri.views import container_status, pod_status
from windlass_local.inside import LocalNamespace, Running
from windlass_local.store import Parts
from windlass_streaming import tls
from windlass_streaming.server import Listen, StreamingServer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Configs:
    """The three blocks."""

    runtime: RuntimeConfig
    images: ImagesConfig
    server: ServerConfig


class Snapshotters:
    """Which snapshotter images are unpacked into, by runtime handler."""

    def __init__(self, configs: Configs) -> None:
        """Read the configuration."""
        self._default = configs.images.snapshotter
        handlers = {name: each.snapshotter for name, each in configs.runtime.containerd.runtimes.items()}
        platforms = {name: each.snapshotter for name, each in configs.images.runtime_platforms.items()}
        self._of = {name: found for name, found in [*platforms.items(), *handlers.items()] if found}

    def of(self, handler: str) -> str:
        """Return a handler's; one that is not known has the one of all."""
        return self._of.get(handler, self._default)

    def all(self) -> list[str]:
        """Return all, the one of all first."""
        return list(dict.fromkeys([self._default, *self._of.values()]))


class CriRuntime:
    """What the services serve. `ready` says when."""

    def __init__(
        self,
        parts: Parts,
        running: Running,
        exchange: Exchange,
        transfer: Transferrer,
        controllers: dict[str, SandboxController],
        configs: Configs,
        roots: Mapping[str, str],
        root: Path,
        state: Path,
        hooks: Hooks,
    ) -> None:
        """Put the parts together; nothing runs before `start`. ``roots`` are the directories of snapshotters."""
        metadata: Metadata = parts.metadata
        namespace = LocalNamespace(parts, running, NAMESPACE)
        self.config = configs.runtime
        self.events = Events()
        self.network = _network(self.config, state)
        self.images = Images(namespace, exchange, configs.images.snapshotter, configs.images.pinned_images.values())
        self.snapshotters = Snapshotters(configs)
        patience = durations.seconds(configs.images.image_pull_progress_timeout)
        self.pulls = Pulls(self.images, transfer, From(configs.images.registry.config_path, patience))
        self.handlers = Handlers(self.config.containerd, running.tasks)
        self.steps = PodSteps(hooks)
        self._sandbox_image = configs.images.pinned_images.get("sandbox", "")
        self.pods = Pods(
            metadata, controllers, self.network, self.handlers, root, self.events, self.steps, self._provision()
        )
        self.containers = Containers(
            namespace, self.pods, self.images, self.config, root, state, self.events, self.steps
        )
        self.steps.known = PodDomain(self.steps, self.pods, self.containers, self.images, self.config)
        self.execs = Execs(self.containers, self.pods)
        self.streaming = StreamingServer(self.execs, _listen(configs.server))
        self.usage = [
            DiskUsage(metadata.snapshotter(name, NAMESPACE), roots.get(name, ""), configs.images.stats_collect_period)
            for name in self.snapshotters.all()
        ]
        self._ooms = OomWatch(exchange, self.containers)
        self.stats = Stats(self.containers, self.pods.index, self.usage[0], self.config)
        self.metrics = Metrics(self.containers, self.pods.index, self.usage[0], self.stats.places)
        self.checkpoints = Checkpoints(self.containers, self.images, running.tasks, self.config, root)
        self.restores = Restores(self.containers, self.pods, self.checkpoints, self.remove_pod)
        self._started = False
        self.events.describe = self._describe

    def _provision(self) -> Provision:
        selinux = Selinux(self.config.enable_selinux, self.config.selinux_category_range)
        return Provision(selinux, closed_by_default(self.config), self._ensure_sandbox_image)

    async def ready(self) -> CriRuntime:
        """Return this, once it has recovered. Raises Unavailable before."""
        if not self._started:
            raise Unavailable("server is not initialized yet")
        return self

    async def start(self) -> None:
        """Find what an earlier daemon ran, and begin to serve."""
        await self.network.start()
        await self.images.start()
        await self.pods.recover()
        await self._ooms.start()
        await self.containers.recover()
        await self.checkpoints.recover()
        await self.streaming.start()
        await self.steps.serve()
        self._started = True

    async def stop(self) -> None:
        """Serve no longer; pods go on."""
        self._started = False
        await self.stats.stop()
        await self.checkpoints.stop()
        await self.streaming.stop()
        await self._ooms.stop()
        self.steps.close()
        await self.containers.close()
        await self.pods.close()
        await self.network.stop()
        await self.images.stop()

    async def stop_pod(self, pod: Pod) -> None:
        """Stop a pod's containers, then the pod."""
        async with pod.lock:
            await self._stop_pod(pod)

    async def _stop_pod(self, pod: Pod) -> None:
        pod.stopping = True
        try:
            stopping = [self.stop_container(each, 0) for each in self.containers.of_pod(pod.id)]
            await asyncio.gather(*stopping)
            snapshotter = self.snapshotters.of(pod.data.handler)
            await self.containers.creation.image_volumes.release(pod.id, snapshotter)
            await self.pods.stop(pod)
        finally:
            pod.stopping = False

    async def remove_pod(self, pod: Pod) -> None:
        """Stop a pod, remove its containers, then the pod."""
        async with pod.lock:
            if pod.id not in self.pods.index:
                return  # another call has removed it meanwhile
            await self._stop_pod(pod)
            await asyncio.gather(*(self.containers.remove(each) for each in self.containers.of_pod(pod.id)))
            await self.pods.remove(pod)

    async def stop_container(self, container: Container, timeout: float) -> None:
        """Stop a container, and wait until hook plugins know."""
        await self.containers.stop(container, timeout)
        await self.steps.told(container)

    async def update_container(self, container: Container, wanted: cri.LinuxContainerResources) -> None:
        """Change a container's limits, in which hook plugins have a say."""
        async with self.steps.changes.one():
            decided = await self.steps.update_container(container, wanted)
            await self.containers.updates.update(container, decided.limits, decided.more)
            await self.steps.container_updated(container)

    async def _ensure_sandbox_image(self, snapshotter: str) -> None:
        """Pull the image of pause containers if it is not there. Raises Unknown, and as a pull."""
        if not self._sandbox_image:
            raise Unknown("there is no sandbox image; set pinned_images.sandbox in io.containerd.cri.v1.images")
        if self.images.find(self._sandbox_image) is None:
            await self.pulls.pull(self._sandbox_image, cri.AuthConfig(), snapshotter or self.images.snapshotter)

    async def features(self, handler: str) -> cri.RuntimeHandlerFeatures:
        """Return what a handler is able to do; its runtime is asked once. Raises Unknown."""
        return await self.handlers.features(handler)

    def status_of(self, container: Container) -> cri.ContainerStatus:
        """Return a container's status."""
        return container_status(container, self.images.get(container.data.image_id))

    async def info_of(self, container: Container) -> dict[str, str]:
        """Return what a verbose status says. Raises NotFound."""
        row = await self.containers.namespace.containers.get(container.id)
        pid = 0
        if container.status.state == cri.CONTAINER_RUNNING:
            with suppress(Error):
                pid = (await self.containers.namespace.tasks.get(container.id)).pid
        pod = self.pods.index.find(container.data.pod)
        handler = self.handlers.runtimes.get(pod.data.handler) if pod else None
        return container_info(container, row, pid, handler.options if handler else {})

    def _describe(self, pod: str) -> tuple[cri.PodSandboxStatus | None, list[cri.ContainerStatus]]:
        try:
            found = self.pods.index.find(pod)
        except Error:
            found = None
        containers = [self.status_of(each) for each in self.containers.of_pod(pod)]
        return (pod_status(found) if found else None), containers


def _network(config: RuntimeConfig, state: Path) -> PodNetwork:
    runtimes = config.containerd.runtimes.items()
    own = {name: (each.cni_conf_dir, each.cni_max_conf_num) for name, each in runtimes if each.cni_conf_dir}
    place = state / "netns" if config.netns_mounts_under_state_dir else NAMESPACES
    return PodNetwork(config.cni, Path(config.cni_cache_dir), own, place)


def _listen(config: ServerConfig) -> Listen:
    """Return where the streaming server listens. Raises FailedPrecondition for a key pair that cannot be used."""
    context = None
    if config.enable_tls_streaming:
        pair = config.x509_key_pair_streaming
        if pair.tls_cert_file:
            context = tls.from_files(Path(pair.tls_cert_file), Path(pair.tls_key_file))
        else:
            addresses = {address[4][0] for address in socket.getaddrinfo(config.stream_server_address, 0)}
            context = tls.self_signed(sorted(map(str, addresses)))
    idle = durations.seconds(config.stream_idle_timeout)
    return Listen(config.stream_server_address, int(config.stream_server_port), context, idle)
