"""Pods: they are run, stopped and removed; what an earlier daemon ran is found again (docs/containerd 5.5)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from windlass.contracts.metadata import Metadata
from windlass.contracts.sandboxes import SandboxController, SandboxOptions
from windlass.contracts.values import Payload
from windlass.errors import Error, Unknown
from windlass.gate import offload
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import Containerd, Runtime
from windlass_cri.events import Events
from windlass_cri.files import PodFiles
from windlass_cri.ids import Index, Names, new_id, pod_name
from windlass_cri.network import PodNetwork
from windlass_cri.record import CONFIG_TYPE, NAMESPACE, Pod, PodData, pod_of
from windlass_local.waiting import unless_gone

logger = logging.getLogger(__name__)
R = TypeVar("R")

READY = "SANDBOX_READY"


class Pods:
    """All pods. `stop` and `remove` are the caller's to call after a pod's containers have ended, and gone."""

    def __init__(
        self,
        metadata: Metadata,
        controllers: Mapping[str, SandboxController],
        network: PodNetwork,
        config: Containerd,
        root: Path,
        events: Events,
    ) -> None:
        """Know none yet; files of pods are kept below ``root``."""
        self.index: Index[Pod] = Index("sandbox")
        self._names = Names("sandbox")
        self._store = metadata.sandboxes(NAMESPACE)
        self._controllers = controllers
        self._network = network
        self._config = config
        self._root = root
        self._events = events
        self._attempts: dict[str, asyncio.Task[str]] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}

    def files(self, id: str) -> PodFiles:
        """Return the files of a pod."""
        return PodFiles(self._root / "sandboxes" / id)

    def runtime(self, handler: str) -> Runtime:
        """Return what a handler stands for. Raises Unknown."""
        name = handler or self._config.default_runtime_name
        try:
            return self._config.runtimes[name]
        except KeyError:
            there = ", ".join(sorted(self._config.runtimes))
            raise Unknown(f'no runtime for "{name}" is configured; there are {there}') from None

    async def run(self, config: cri.PodSandboxConfig, handler: str) -> str:
        """Run a pod and return its ID. When that fails nothing is left, and the error names the step.

        A client that asks again while the first attempt is under way gets the outcome of that one.
        """
        if not config.HasField("metadata"):
            raise Unknown("sandbox config must include metadata")
        name = pod_name(config.metadata)
        attempt = self._attempts.get(name)
        if attempt is None:
            attempt = asyncio.create_task(self._run(name, config, handler))
            self._attempts[name] = attempt
            attempt.add_done_callback(lambda _: self._attempts.pop(name, None))
        # Shielded: one client that goes away must not end what another waits for.
        return await asyncio.shield(attempt)

    async def _run(self, name: str, config: cri.PodSandboxConfig, handler: str) -> str:
        id, runtime = new_id(), self.runtime(handler)
        controller = self._controller(runtime.sandboxer)
        self._names.take(name, id)
        pod = Pod(id, config, PodData(name, handler))
        async with AsyncExitStack() as undo:
            undo.callback(self._names.give_back, name, id)
            await self._step(pod, "files", asyncio.to_thread(self.files(id).make, config))
            undo.push_async_callback(asyncio.to_thread, self.files(id).remove)
            if not pod.host_network:
                await self._connect(pod, undo)
            record = pod.to_sandbox(runtime.runtime_type, runtime.sandboxer)
            await self._step(pod, "record", offload(self._store.create, record))
            undo.push_async_callback(self._forget, id)
            await self._start(pod, controller, undo)
            undo.pop_all()
        self.index.add(id, pod)
        self._watch(pod, controller)
        self._events.pod(pod, cri.CONTAINER_CREATED_EVENT, cri.CONTAINER_STARTED_EVENT)
        return id

    async def _connect(self, pod: Pod, undo: AsyncExitStack) -> None:
        """Make a network namespace and attach it."""
        path = await self._step(pod, "network namespace", self._network.make_namespace())
        undo.push_async_callback(self._network.remove_namespace, path)
        addresses = await self._step(pod, "network", self._network.attach(pod.id, pod.config, path))
        undo.push_async_callback(self._network.detach, pod.id, path)
        pod.data = replace(pod.data, netns=path, addresses=addresses)

    async def _start(self, pod: Pod, controller: SandboxController, undo: AsyncExitStack) -> None:
        """Have the controller make the sandbox, and keep what came of it."""
        options = SandboxOptions(
            options=Payload(CONFIG_TYPE, pod.config.SerializeToString()), netns_path=pod.data.netns
        )
        runtime = self.runtime(pod.data.handler)
        record = pod.to_sandbox(runtime.runtime_type, runtime.sandboxer)
        await self._step(pod, "sandbox", controller.create(NAMESPACE, record, options))
        undo.push_async_callback(self._shut_down, controller, pod.id)
        started = await self._step(pod, "sandbox", controller.start(NAMESPACE, pod.id))
        pod.data = replace(pod.data, created_at=started.created_at or time.time_ns())
        record = pod.to_sandbox(runtime.runtime_type, runtime.sandboxer)
        await self._step(pod, "record", offload(self._store.update, record, ("extensions",)))
        status = await controller.status(NAMESPACE, pod.id)
        pod.namespaces, pod.ready = namespaces(status.info, status.pid), True

    async def _step(self, pod: Pod, step: str, work: Awaitable[R]) -> R:
        """Await a step; its error says which it was."""
        try:
            return await work
        except (Error, OSError) as error:
            kind = type(error) if isinstance(error, Error) else Unknown
            raise kind(f"pod {pod.data.name}: {step}: {error}") from error

    def _controller(self, name: str) -> SandboxController:
        try:
            return self._controllers[name]
        except KeyError:
            there = ", ".join(sorted(self._controllers))
            raise Unknown(f'no sandbox controller "{name}" is installed; there are {there}') from None

    def _controller_of(self, pod: Pod) -> SandboxController:
        return self._controller(self.runtime(pod.data.handler).sandboxer)

    def _watch(self, pod: Pod, controller: SandboxController) -> None:
        self._watching[pod.id] = asyncio.create_task(self._until_ended(pod, controller))

    async def _until_ended(self, pod: Pod, controller: SandboxController) -> None:
        """Notice the end of a pod whose sandbox dies."""
        try:
            await controller.wait(NAMESPACE, pod.id)
        except Error as error:
            logger.warning("pod %s cannot be watched: %s", pod.id, error)
            return
        if pod.ready:
            pod.ready = False
            self._events.pod(pod, cri.CONTAINER_STOPPED_EVENT)

    async def stop(self, pod: Pod) -> None:
        """End a pod's sandbox and detach it from its networks; again is not an error."""
        was_ready, pod.ready = pod.ready, False
        await self._controller_of(pod).stop(NAMESPACE, pod.id, 0)
        if pod.data.netns:
            await self._network.detach(pod.id, pod.data.netns)
            await self._network.remove_namespace(pod.data.netns)
        pod.data = replace(pod.data, addresses=())
        await asyncio.to_thread(self.files(pod.id).unmount)
        if was_ready:
            self._events.pod(pod, cri.CONTAINER_STOPPED_EVENT)

    async def remove(self, pod: Pod) -> None:
        """Forget a pod that was stopped."""
        await self._shut_down(self._controller_of(pod), pod.id)
        await self._forget(pod.id)
        await asyncio.to_thread(self.files(pod.id).remove)
        self.index.remove(pod.id)
        self._names.give_back(pod.data.name, pod.id)
        if (task := self._watching.pop(pod.id, None)) is not None:
            task.cancel()
        self._events.pod(pod, cri.CONTAINER_DELETED_EVENT)

    async def _shut_down(self, controller: SandboxController, id: str) -> None:
        await unless_gone(controller.shutdown(NAMESPACE, id))

    async def _forget(self, id: str) -> None:
        await unless_gone(offload(self._store.delete, id))

    async def recover(self) -> None:
        """Find the pods of an earlier daemon, as they are now."""
        for record in await offload(self._store.list):
            try:
                pod = pod_of(record)
                if pod is None:
                    continue
                controller = self._controller_of(pod)
                status = await controller.status(NAMESPACE, pod.id)
            except Error as error:
                logger.warning("pod %s is not understood: %s", record.id, error)
                continue
            pod.ready = status.state == READY
            pod.namespaces = namespaces(status.info, status.pid)
            self._names.take(pod.data.name, pod.id)
            self.index.add(pod.id, pod)
            if pod.ready:
                self._watch(pod, controller)

    async def close(self) -> None:
        """Watch no pod any more; they go on."""
        for task in self._watching.values():
            task.cancel()


def namespaces(info: Mapping[str, str], pid: int) -> dict[str, str]:
    """Return the paths of a sandbox's namespaces: as its controller says, or those of its process."""
    kinds = ("net", "ipc", "uts", "pid")
    if pid and not any(kind in info for kind in kinds):
        return {kind: f"/proc/{pid}/ns/{kind}" for kind in kinds}
    return {kind: info[kind] for kind in kinds if kind in info}
