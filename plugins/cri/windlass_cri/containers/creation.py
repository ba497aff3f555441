"""From a client's configuration to a created container (docs/containerd 5.6)."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from windlass.contracts.containers import Container as Row
from windlass.errors import Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import RuntimeConfig
from windlass_cri.containers.logs import LogFile
from windlass_cri.hooks.steps import PodSteps
from windlass_cri.images.images import Images
from windlass_cri.pods.handlers import options_of
from windlass_cri.pods.leases import CONTAINER
from windlass_cri.pods.pods import Pods
from windlass_cri.record import KIND, Container, ContainerData, Pod, Status
from windlass_cri.spec import cdi, userns, volumes
from windlass_cri.spec import spec as specs
from windlass_cri.spec.imagevolumes import ImageVolumes
from windlass_cri.spec.users import KnownAccounts, user_of
from windlass_cri.steps import step
from windlass_images import platforms
from windlass_local import launch
from windlass_local.inside import LocalNamespace
from windlass_local.waiting import settled
from windlass_oci.runtime_spec import Spec

R = TypeVar("R")


class Creation:
    """Creates containers; knows none of those that are there."""

    def __init__(
        self,
        namespace: LocalNamespace,
        pods: Pods,
        images: Images,
        config: RuntimeConfig,
        root: Path,
        state: Path,
        steps: PodSteps,
    ) -> None:
        """Keep statuses and volumes below ``root``, FIFOs and image volumes below ``state``."""
        self.image_volumes = ImageVolumes(namespace, images, state)
        self._accounts = KnownAccounts()
        self._namespace = namespace
        self._pods = pods
        self._images = images
        self._config = config
        self._steps = steps
        self.root = root / "containers"
        self.state = state / "containers"

    async def create(
        self, pod: Pod, id: str, name: str, wanted: cri.ContainerConfig, image: str, target: int
    ) -> Container:
        """Create a container. When that fails nothing is left. Raises Unknown, NotFound."""
        stored = self._images.get(image)
        log = log_path(pod.config.log_directory, wanted.log_path)
        data = ContainerData(name, pod.id, log, image, stored.stop_signal if stored else "")
        config = cri.ContainerConfig()
        config.CopyFrom(wanted)
        container = Container(id, config, data, self.root / id, Status())
        try:
            await self._create(pod, container, target)
        except BaseException:
            await settled(self._undo(container))
            raise
        return container

    async def _undo(self, container: Container) -> None:
        await self._steps.undo(container)
        await asyncio.to_thread(self.remove_directories, container.id)

    async def _create(self, pod: Pod, container: Container, target: int) -> None:
        runtime = self._pods.runtime(pod.data.handler)
        snapshotter = runtime.snapshotter or self._images.snapshotter
        await self._step(container, "files", asyncio.to_thread(self._make_directories, container))
        user = userns.of_container(pod, container.config.linux.security_context.namespace_options)
        labels = await userns.snapshot_labels(user, self._namespace, snapshotter)
        volumes_of = self.image_volumes.prepare(pod.id, container.config, snapshotter, labels)
        await self._step(container, "mount", volumes_of)
        row = Row(
            container.id,
            runtime=runtime.runtime_type,
            runtime_options=options_of(runtime),
            image=self._images.name_of(container.data.image_id),
            snapshotter=snapshotter,
            labels={**container.config.labels, KIND: "container"},
            extensions=container.extensions(),
            sandbox=pod.id,
        )

        async def build(rootfs: launch.Rootfs) -> Spec:
            return await self._step(container, "spec", self._spec(pod, container, target, rootfs))

        making = launch.create(self._namespace, row, platforms.host(), build, snapshot_labels=labels, purpose=CONTAINER)
        await self._step(container, "snapshot", making)
        try:
            pod.check_running()  # it may have been stopped, or removed, meanwhile
            container.change(created_at=time.time_ns())
        except BaseException:
            await settled(launch.undo(self._namespace, container.id))
            raise

    async def _spec(self, pod: Pod, container: Container, target: int, rootfs: launch.Rootfs) -> Spec:
        config, directory = container.config, self.root / container.id
        wanted = [] if self._config.ignore_image_defined_volumes else rootfs.image.volumes
        declared = volumes.declared(replace(rootfs.image, volumes=tuple(wanted)), config.mounts, directory)
        if declared:
            async with rootfs.namespace.mountable(rootfs.mounts) as mounts:
                await asyncio.to_thread(volumes.fill, declared, userns.without_mappings(mounts))
        user = userns.of_container(pod, config.linux.security_context.namespace_options)
        if user is not None:
            for each in declared:
                user.apply(each)
        handler = pod.data.handler
        plan = specs.Plan(
            pod=pod,
            files=self._pods.files(pod.id),
            id=container.id,
            config=config,
            image=rootfs.image,
            runtime=self._pods.runtime(handler),
            settings=self._config,
            features=await self._pods.features(handler) if specs.needs_features(config, user) else None,
            base=await asyncio.to_thread(self._pods.base_spec, handler),
            volumes=declared,
            target=target,
            labels=self._pods.selinux.for_container(
                config.linux.security_context, pod.data.process_label, self._pods.labels_taken()
            ),
        )
        made = await asyncio.to_thread(specs.build, plan)
        made["process"]["user"] = await user_of(rootfs, config.linux.security_context, self._accounts)
        await asyncio.to_thread(cdi.inject, made, config, self._config)
        await self._steps.create_container(container, made)
        container.learn(made)
        return made

    async def _step(self, container: Container, name: str, work: Awaitable[R]) -> R:
        return await step(f"container {container.data.name}", name, work)

    def _make_directories(self, container: Container) -> None:
        for directory in (container.directory, self.state / container.id):
            directory.mkdir(mode=0o755, parents=True)
        if container.data.log:
            LogFile(Path(container.data.log)).close()

    def remove_directories(self, id: str) -> None:
        """Remove what is kept of a container on the disk, but its log. Blocks."""
        for directory in (self.root / id, self.state / id):
            shutil.rmtree(directory, ignore_errors=True)

    def sweep(self, known: Collection[str]) -> None:
        """Remove the directories of containers that are not ``known``: a daemon died while it made them. Blocks."""
        for place in (self.root, self.state):
            for directory in place.iterdir() if place.exists() else ():
                if directory.name not in known:
                    self.remove_directories(directory.name)


def log_path(directory: str, path: str) -> str:
    """Return where a container's log is, empty for no log. Raises Unknown for a path out of the pod's directory."""
    if not directory or not path:
        return ""
    if not directory.startswith("/"):
        raise Unknown(f'log_directory "{directory[:200]}" is not absolute')
    inner = os.path.normpath(path.lstrip("/"))
    if inner in ("", ".", "..") or inner.startswith("../"):
        raise Unknown(f'log_path "{path[:200]}" is not below the log_directory of the pod')
    return os.path.normpath(f"{directory}/{inner}")
