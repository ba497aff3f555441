"""Pods: they are run, stopped and removed; what an earlier daemon ran is found again (docs/containerd 5.5)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from windlass.contracts.metadata import Metadata
from windlass.contracts.sandboxes import Sandbox, SandboxController, SandboxOptions
from windlass.contracts.values import Payload, check_labels
from windlass.errors import Error, Unimplemented, Unknown
from windlass.gate import offload
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.attempts import Attempts
from windlass_cri.config import Runtime
from windlass_cri.events import Events
from windlass_cri.hooks.steps import PodSteps
from windlass_cri.ids import Index, Names, new_id, pod_name
from windlass_cri.pods.files import PodFiles
from windlass_cri.pods.handlers import Handlers, handler_of, options_of
from windlass_cri.pods.leases import PodLeases
from windlass_cri.pods.network import PodNetwork
from windlass_cri.pods.provision import Provision
from windlass_cri.pods.sysctls import with_sysctls
from windlass_cri.record import CONFIG_TYPE, NAMESPACE, Pod, PodData, pod_of
from windlass_cri.spec import userns
from windlass_cri.steps import step
from windlass_local.waiting import settled, unless_gone
from windlass_oci.runtime_spec import Spec

logger = logging.getLogger(__name__)
R = TypeVar("R")

READY = "SANDBOX_READY"
PAUSED = "podsandbox"
"""The controller whose sandboxes are containers of an image."""


class Pods:
    """All pods. `stop` and `remove` are the caller's to call after a pod's containers have ended, and gone.

    The directory of a pod's files is its journal: it is made first and removed last, so that a daemon that starts
    finds what an earlier one had begun to make, and takes that apart.
    """

    def __init__(
        self,
        metadata: Metadata,
        controllers: Mapping[str, SandboxController],
        network: PodNetwork,
        handlers: Handlers,
        root: Path,
        events: Events,
        steps: PodSteps,
        provision: Provision | None = None,
    ) -> None:
        """Know none yet; files of pods are kept below ``root``."""
        self.index: Index[Pod] = Index("sandbox")
        self._names = Names("sandbox")
        self._store = metadata.sandboxes(NAMESPACE)
        self._controllers = controllers
        self._network = network
        self._handlers = handlers
        self._root = root / "sandboxes"
        self._events = events
        self._steps = steps
        self._leases = PodLeases(metadata.leases(NAMESPACE))
        self._attempts = Attempts()
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._provision = provision or Provision()
        self.selinux = self._provision.selinux

    def files(self, id: str) -> PodFiles:
        """Return the files of a pod."""
        return PodFiles(self._root / id)

    def runtime(self, handler: str) -> Runtime:
        """Return what a handler stands for. Raises Unknown."""
        return self._handlers.get(handler)

    async def run(self, config: cri.PodSandboxConfig, handler: str) -> str:
        """Run a pod and return its ID. When that fails nothing is left, and the error names the step.

        A client that asks again for the same while the first attempt is under way, or after it has left that, gets the
        outcome of that one; one that asks for something else gets FailedPrecondition.
        """
        if not config.HasField("metadata"):
            raise Unknown("sandbox config must include metadata")
        name = pod_name(config.metadata)
        request = config.SerializeToString(deterministic=True) + handler.encode()
        return await self._attempts.run(name, request, lambda: self._run(name, config, handler))

    async def _run(self, name: str, config: cri.PodSandboxConfig, wanted: str) -> str:
        id, handler = new_id(), handler_of(config, wanted)
        await self._check(config, handler)
        label = self.selinux.for_pod(config.linux.security_context, self.labels_taken()).process
        pod = Pod(id, config, PodData(name, handler, sandboxer=self.runtime(handler).sandboxer, process_label=label))
        controller = self._controller_of(pod)
        self._names.take(name, id)
        try:
            await self._make(pod, controller)
            async with self._steps.changes.one():
                await self._step(pod, "hooks", self._steps.run_pod(pod))
                self.index.add(id, pod)
        except BaseException:
            await settled(self._withdraw(pod, controller))
            raise
        self._watch(pod, controller)
        self._events.pod(pod, cri.CONTAINER_CREATED_EVENT, cri.CONTAINER_STARTED_EVENT)
        return id

    async def features(self, handler: str) -> cri.RuntimeHandlerFeatures:
        """Return what a handler is able to do. Raises Unknown."""
        return await self._handlers.features(handler)

    def labels_taken(self) -> list[str]:
        """Return the labels of SELinux that pods have."""
        return [pod.data.process_label for pod in self.index]

    def base_spec(self, handler: str) -> Spec | None:
        """Return what containers' specs of a handler are made from, None for the default. Blocks; raises Unknown."""
        return self._handlers.base_spec(handler)

    async def _check(self, config: cri.PodSandboxConfig, handler: str) -> None:
        """Refuse labels that a record cannot have, and a user namespace that the runtime cannot map mounts for.

        The files of such a namespace would belong to others. Raises InvalidArgument, Unknown.
        """
        check_labels(config.labels)
        if userns.wanted(config.linux.security_context.namespace_options) is not None:
            userns.check(await self.features(handler), handler or self._handlers.in_order()[0])

    async def _make(self, pod: Pod, controller: SandboxController) -> None:
        await self._step(pod, "files", settled(asyncio.to_thread(self.files(pod.id).make, pod.config)))
        await self._step(pod, "lease", self._leases.create(pod.id))
        if not pod.host_network:
            user, path = userns.wanted(pod.namespace_options), self._network.path_of(pod.id)
            # Known before it is there, so that it goes also when this is cut off.
            pod.data = replace(pod.data, netns=path)
            await self._step(pod, "network namespace", settled(self._network.make_namespace(pod.id, user)))
            addresses = await self._step(
                pod, "network", self._network.attach(pod.id, pod.config, path, pod.data.handler)
            )
            pod.data = replace(pod.data, addresses=addresses)
        options = SandboxOptions(
            options=Payload(CONFIG_TYPE, with_sysctls(pod, self._provision.sysctls)), netns_path=pod.data.netns
        )
        await self._step(pod, "sandbox", controller.create(NAMESPACE, self._record(pod), options))
        if pod.data.sandboxer == PAUSED:
            snapshotter = self.runtime(pod.data.handler).snapshotter
            await self._step(pod, "sandbox image", self._provision.ensure_image(snapshotter))
        started = await self._step(pod, "sandbox", controller.start(NAMESPACE, pod.id))
        pod.data = replace(pod.data, created_at=started.created_at or time.time_ns())
        await self._step(pod, "record", offload(self._store.create, self._record(pod)))
        await self._step(pod, "sandbox", self._look_at(pod, controller))

    async def _step(self, pod: Pod, name: str, work: Awaitable[R]) -> R:
        return await step(f"pod {pod.data.name}", name, work)

    async def _look_at(self, pod: Pod, controller: SandboxController) -> None:
        """Ask the controller how a pod is."""
        status = await controller.status(NAMESPACE, pod.id)
        pod.ready, pod.pid = status.state == READY, status.pid
        pod.namespaces = namespaces(status.info, status.pid, pod.data.netns)

    async def _withdraw(self, pod: Pod, controller: SandboxController) -> None:
        """Take back what was made of a pod that did not come up.

        When that fails a pod with addresses stays, not ready, so that its client removes it once that works.
        """
        try:
            await self._take_apart(pod.id, pod.data.netns, [controller])
        except (Error, OSError) as error:
            logger.warning("pod %s did not come up, and is not all gone: %s", pod.data.name, error)
            if pod.data.addresses:
                await self._keep(pod)
                return
            # What plugins had begun is asked back by the next daemon, for which the directory stays.
            await asyncio.gather(self._network.remove_namespace(pod.data.netns), return_exceptions=True)
        self._names.give_back(pod.data.name, pod.id)

    async def _keep(self, pod: Pod) -> None:
        pod.ready, pod.data = False, replace(pod.data, created_at=pod.data.created_at or time.time_ns())
        self.index.add(pod.id, pod)
        try:
            await offload(self._store.create, self._record(pod))
        except Error as error:
            logger.warning("pod %s is not in the daemon's records: %s", pod.id, error)

    async def _take_apart(self, id: str, netns: str, controllers: Iterable[SandboxController]) -> None:
        """Remove all of a pod that may be there; the directory last, once the rest is gone. Raises Error, OSError."""
        try:
            for controller in controllers:
                await unless_gone(controller.shutdown(NAMESPACE, id))
        finally:
            await self._disconnect(id, netns)
        await self._leases.delete(id)
        await unless_gone(offload(self._store.delete, id))
        await asyncio.to_thread(self.files(id).remove)

    async def _disconnect(self, id: str, netns: str) -> None:
        if netns:
            await self._network.detach(id, netns)
            await self._network.remove_namespace(netns)

    def _record(self, pod: Pod) -> Sandbox:
        runtime = self.runtime(pod.data.handler)
        return pod.to_sandbox(runtime.runtime_type, pod.data.sandboxer, options_of(runtime))

    def _controller_of(self, pod: Pod) -> SandboxController:
        name = pod.data.sandboxer or self.runtime(pod.data.handler).sandboxer
        try:
            return self._controllers[name]
        except KeyError:
            there = ", ".join(sorted(self._controllers))
            raise Unknown(f'no sandbox controller "{name}" is installed; there are {there}') from None

    def _watch(self, pod: Pod, controller: SandboxController) -> None:
        self._watching[pod.id] = asyncio.create_task(self._until_ended(pod, controller))

    async def _until_ended(self, pod: Pod, controller: SandboxController) -> None:
        """Notice the end of a pod whose sandbox dies."""
        try:
            await controller.wait(NAMESPACE, pod.id)
        except Error as error:
            logger.warning("pod %s cannot be watched: %s", pod.id, error)
            return
        self._ended(pod)

    def _ended(self, pod: Pod) -> None:
        if pod.ready:
            pod.ready, pod.pid = False, 0
            self._events.pod(pod, cri.CONTAINER_STOPPED_EVENT)

    async def stop(self, pod: Pod) -> None:
        """End a pod's sandbox and detach it from its networks; again is not an error."""
        self._attempts.forget(pod.data.name)
        await self._controller_of(pod).stop(NAMESPACE, pod.id, 0)
        was_ready, pod.ready, pod.pid = pod.ready, False, 0
        async with self._steps.changes.one():
            await self._steps.stop_pod(pod)
        await self._step(pod, "network", self._disconnect(pod.id, pod.data.netns))
        pod.data = replace(pod.data, addresses=())
        await asyncio.to_thread(self.files(pod.id).unmount)
        if was_ready:
            self._events.pod(pod, cri.CONTAINER_STOPPED_EVENT)

    async def remove(self, pod: Pod) -> None:
        """Forget a pod that was stopped."""
        # Stopped, it has no networks any more.
        await self._take_apart(pod.id, "", [self._controller_of(pod)])
        if (task := self._watching.pop(pod.id, None)) is not None:
            task.cancel()
        await settled(self._forget(pod))

    async def _forget(self, pod: Pod) -> None:
        """Not to be cut off: clients and hook plugins see a pod go once."""
        self._events.pod(pod, cri.CONTAINER_DELETED_EVENT)
        async with self._steps.changes.one():
            await self._steps.remove_pod(pod)
            self.index.remove(pod.id)
        self._names.give_back(pod.data.name, pod.id)

    async def update(
        self, pod: Pod, overhead: cri.LinuxContainerResources, resources: cri.LinuxContainerResources
    ) -> None:
        """Keep what a pod uses beyond its containers, and in all, and let its sandbox know."""
        async with self._steps.changes.one():
            await self._steps.update_pod(pod, overhead, resources)
            await self._update(pod, overhead, resources)
            await self._steps.pod_updated(pod)

    async def _update(
        self, pod: Pod, overhead: cri.LinuxContainerResources, resources: cri.LinuxContainerResources
    ) -> None:
        pod.config.linux.overhead.CopyFrom(overhead)
        pod.config.linux.resources.CopyFrom(resources)
        record = self._record(pod)
        await offload(self._store.update, record, ("extensions",))
        try:
            await self._controller_of(pod).update(NAMESPACE, record, ("extensions",))
        except Unimplemented:
            pass  # then nothing of the sandbox depends on it

    async def recover(self) -> None:
        """Find the pods of an earlier daemon, as they are now; what else it has left is removed in the background."""
        pods = [pod for record in await offload(self._store.list) if (pod := _understood(record)) is not None]
        await asyncio.gather(*(self._recover(pod) for pod in pods))
        left = await asyncio.to_thread(self._directories)
        await self._leases.sweep({*(pod.id for pod in self.index), *left})
        self._sweeping = asyncio.create_task(self._sweep([id for id in left if id not in self.index]))

    async def _recover(self, pod: Pod) -> None:
        # Also one that nothing can be said of is there, and its client can remove it.
        self.index.add(pod.id, pod)
        try:
            self._names.take(pod.data.name, pod.id)
            controller = self._controller_of(pod)
            await self._look_at(pod, controller)
            if pod.data.netns and not await self._network.is_there(pod.data.netns):
                pod.ready, pod.data = False, replace(pod.data, addresses=())
        except (Error, OSError) as error:
            logger.warning("pod %s is not ready: %s", pod.id, error)
            return
        if pod.ready:
            self._watch(pod, controller)
        else:
            self._steps.had_stopped(pod.id)

    def _directories(self) -> list[str]:
        return [path.name for path in self._root.iterdir()] if self._root.is_dir() else []

    async def _sweep(self, left: list[str]) -> None:
        """Take apart the pods that an earlier daemon had begun to make, or to remove."""
        await self._network.collect({*(pod.id for pod in self.index), *left})
        controllers = [self._controllers[name] for name in self._handlers.sandboxers() if name in self._controllers]
        for id in left:
            try:
                await self._take_apart(id, self._network.path_of(id), controllers)
            except (Error, OSError, ValueError) as error:
                logger.warning("what is left of pod %s stays: %s", id, error)

    async def close(self) -> None:
        """Begin nothing more and watch no pod; they go on."""
        await self._attempts.close()
        tasks: list[asyncio.Task[object]] = [*self._watching.values()]
        if self._sweeping is not None:
            tasks.append(self._sweeping)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _understood(record: Sandbox) -> Pod | None:
    try:
        return pod_of(record)
    except Error as error:
        logger.warning("pod %s is not understood: %s", record.id, error)
        return None


def namespaces(info: Mapping[str, str], pid: int, netns: str = "") -> dict[str, str]:
    """Return the paths of a sandbox's namespaces: as its controller says, or those of its process.

    The process of a shim that makes no namespaces is in the host's network; the pod's containers are in the pod's.
    """
    kinds = ("net", "ipc", "uts", "pid")
    if pid and not any(kind in info for kind in kinds):
        return {kind: f"/proc/{pid}/ns/{kind}" for kind in kinds} | ({"net": netns} if netns else {})
    return {kind: info[kind] for kind in (*kinds, "user") if kind in info}
