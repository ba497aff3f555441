"""Containers of pods: created, started, stopped, removed, and found again (docs/containerd 5.6)."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from pathlib import Path

from windlass.contracts.containers import Container as Row
from windlass.contracts.tasks import CreateOptions, Process
from windlass.contracts.tasks import Status as TaskStatus
from windlass.errors import Error, NotFound, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.attempts import Attempts
from windlass_cri.config import RuntimeConfig
from windlass_cri.containers import signals
from windlass_cri.containers.containerio import opened, reopened
from windlass_cri.containers.creation import Creation
from windlass_cri.containers.ends import KILL_TIMEOUT, UNKNOWN_EXIT, Ends
from windlass_cri.containers.orphans import end_orphans
from windlass_cri.containers.processio import ProcessIO
from windlass_cri.containers.updates import Updates
from windlass_cri.events import Events
from windlass_cri.hooks.steps import PodSteps
from windlass_cri.ids import Index, Names, container_name, new_id
from windlass_cri.images.images import Images
from windlass_cri.pods.handlers import task_options
from windlass_cri.pods.pods import Pods
from windlass_cri.record import KIND, Container, Pod, container_of
from windlass_cri.spec.selinux import labelled
from windlass_cri.steps import runtime_step, step
from windlass_local import launch
from windlass_local.inside import LocalNamespace
from windlass_local.waiting import give_up, settled, unless_gone
from windlass_oci.payloads import spec_of
from windlass_oci.runtime_spec import Spec

logger = logging.getLogger(__name__)

NEVER_STARTED = 128


class Containers:
    """All containers of all pods."""

    def __init__(
        self,
        namespace: LocalNamespace,
        pods: Pods,
        images: Images,
        config: RuntimeConfig,
        root: Path,
        state: Path,
        events: Events,
        steps: PodSteps,
    ) -> None:
        """Know none yet; statuses are kept below ``root``, FIFOs below ``state``."""
        self.index: Index[Container] = Index("container")
        self.namespace = namespace
        self.updates = Updates(namespace, config)
        self.creation = Creation(namespace, pods, images, config, root, state, steps)
        self._steps = steps
        self._pods = pods
        self._images = images
        self._config = config
        self._root = root / "containers"
        self._state = state / "containers"
        self._events = events
        self._names = Names("container", "check if another CreateContainer request is in progress: ")
        self._attempts = Attempts()
        self._ends = Ends(namespace, events, steps)

    def of_pod(self, pod: str) -> list[Container]:
        """Return the containers of a pod."""
        return [each for each in self.index if each.data.pod == pod]

    async def create(self, pod: Pod, config: cri.ContainerConfig) -> str:
        """Create a container and return its ID. When that fails nothing is left, and the error names the step.

        A client that asks again gets the outcome of its first attempt, as for pods. Raises Unknown, NotFound.
        """
        if not config.HasField("metadata"):
            raise Unknown("container config must include metadata")
        if not pod.ready:
            raise Unknown(f"sandbox {pod.id} is not running; its containers cannot be created")
        signals.check(config.stop_signal)
        name = container_name(config.metadata, pod.config.metadata)
        request = config.SerializeToString(deterministic=True) + pod.id.encode()
        return await self._attempts.run(name, request, lambda: self._create(pod, config, name))

    async def _create(self, pod: Pod, config: cri.ContainerConfig, name: str) -> str:
        id = new_id()
        image = await step(f"container {name}", "image", self._images.resolve(config.image.image))
        self._names.take(name, id)
        try:
            target = await self._target(pod, config.linux.security_context.namespace_options)
            async with self._steps.changes.one():
                made = self.creation.create(pod, id, name, config, image, target)
                container = await step(f"container {name}", "record", made)
                # Nothing is awaited from the last look at the pod to here: its removal has to find the container.
                self.index.add(id, container)
        except BaseException:
            self._names.give_back(name, id)
            raise
        self._events.container(container, cri.CONTAINER_CREATED_EVENT)
        await self._steps.container_created(container)
        return id

    async def _target(self, pod: Pod, wanted: cri.NamespaceOption) -> int:
        """Return the process whose PID namespace a container is to join, 0 for none. Raises NotFound, Unknown."""
        if wanted.pid != cri.TARGET:
            return 0
        id = wanted.target_id
        target = self.index.find(id)
        if target is None:
            raise NotFound(f'invalid target container: container "{id[:100]}" does not exist: not found')
        if target.data.pod != pod.id:
            raise Unknown(
                f'invalid target container: container "{id}" (sandbox {target.data.pod}) does not belong to '
                f"sandbox {pod.id}"
            )
        if target.status.state != cri.CONTAINER_RUNNING:
            state = cri.ContainerState.Name(target.status.state)
            raise Unknown(f'invalid target container: container "{id}" is not running - in state {state}')
        return (await self.namespace.tasks.get(target.id)).pid

    async def start(self, container: Container, checkpoint: str = "") -> None:
        """Start a created container. When that fails it has exited with 128, reason StartError.

        It begins as in the directory ``checkpoint``, which becomes its own, if that is not empty.
        """
        if container.starting or container.removing or container.status.state != cri.CONTAINER_CREATED:
            state = cri.ContainerState.Name(container.status.state)
            raise Unknown(f'failed to set starting state for container "{container.id}": container is in {state} state')
        pod = self._pods.index.get(container.data.pod)
        pod.check_running()
        container.starting = True
        try:
            async with self._steps.changes.one():
                await self._start(pod, container, checkpoint)
        except BaseException as error:
            await settled(self._has_not_started(container, str(error) or "the client has given up the call"))
            if isinstance(error, OSError):
                raise Unknown(f"container {container.data.name}: files: {error}") from error
            raise
        finally:
            container.starting = False
        self._events.container(container, cri.CONTAINER_STARTED_EVENT)
        await self._steps.container_started(container)

    async def _has_not_started(self, container: Container, why: str) -> None:
        self._ends.record(container, time.time_ns(), NEVER_STARTED, "StartError", why)
        await self._ends.end_io(container.id, drain=False)
        self._steps.container_ended(container)

    async def _start(self, pod: Pod, container: Container, checkpoint: str) -> None:
        row = await self.namespace.containers.get(container.id)
        mounts = await self.namespace.snapshots.mounts(row.snapshotter, row.snapshot_key)
        io = await settled(self._open(container))
        io.start()
        running = self.namespace.tasks
        runtime, spec = self._pods.runtime(pod.data.handler), spec_of(row)
        options = CreateOptions(
            rootfs=labelled(mounts, spec["linux"].get("mountLabel", "")),
            io=io.io,
            options=task_options(runtime, spec),
            runtime_path=runtime.runtime_path,
            checkpoint=checkpoint,
            owns_checkpoint=bool(checkpoint),
        )
        subject = f"container {container.data.name}"
        await runtime_step(subject, "failed to create containerd task", running.create(row, options))
        waiting = asyncio.create_task(running.wait(container.id))
        try:
            await self._steps.start_container(container)
            doing = f'failed to start containerd task "{container.id}"'
            await runtime_step(subject, doing, running.start(container.id))
            pod.check_running()  # it may have been stopped meanwhile, and stopped only what ran
            container.change(started_at=time.time_ns())
        except BaseException:
            give_up(waiting)
            await settled(self._ends.withdraw_task(container.id))
            raise
        self._ends.watch(container, waiting)

    async def _open(self, container: Container) -> ProcessIO:
        """Open the streams; `Ends` has them also when the caller was cancelled meanwhile."""
        io = await asyncio.to_thread(opened, container, self.io_directory(container.id), self._config)
        self._ends.keep(container.id, io)
        return io

    async def stop(self, container: Container, timeout: float) -> None:
        """Stop a container: its signal, then after ``timeout`` seconds SIGKILL. One that does not run is as it was."""
        if container.status.unknown and self._ends.of(container.id) is None:
            await self._find_task(container)
        ended = self._ends.of(container.id)
        if ended is None or container.status.state not in (cri.CONTAINER_RUNNING, cri.CONTAINER_UNKNOWN):
            return
        if timeout > 0:
            if not container.stopped_by_signal:
                container.stopped_by_signal = True
                await self._signal(container.id, self.stop_signal(container))
            await asyncio.wait({ended}, timeout=timeout)
        if not ended.done():
            await self._signal(container.id, signal.SIGKILL)
            await asyncio.wait({ended}, timeout=KILL_TIMEOUT)
        if not ended.done():
            raise Unknown(f"container {container.id} did not end within {KILL_TIMEOUT:g} s of SIGKILL")

    async def _signal(self, id: str, number: int) -> None:
        await unless_gone(self.namespace.tasks.kill(id, number))

    def stop_signal(self, container: Container) -> int:
        """Return the signal that ends a container: the client's, the image's, or SIGTERM."""
        if container.config.stop_signal:
            return signals.number(signals.name_of(container.config.stop_signal))
        return signals.number(container.data.stop_signal or "SIGTERM")

    async def remove(self, container: Container) -> None:
        """Remove a container, and before that kill it if it runs. Raises Unknown for one that is being started."""
        if container.starting:
            raise Unknown(f"container {container.id} is in starting state, can't be removed")
        if container.removing:
            raise Unknown(f"container {container.id} is already in removing state")
        container.removing = True
        try:
            await self.stop(container, 0)
            await self._ends.end_io(container.id, drain=False)
            await settled(self._remove(container))
        finally:
            container.removing = False

    async def _remove(self, container: Container) -> None:
        """Remove a container that has ended. Not to be cut off: hook plugins see it go once, and its record is gone.

        Who looks at all containers meanwhile sees it with its record, or not at all.
        """
        async with self._steps.changes.one():
            await self._steps.remove_container(container)
            await unless_gone(launch.remove(self.namespace, container.id, force=True))
            await asyncio.to_thread(self.creation.remove_directories, container.id)
            self.index.remove(container.id)
        self._ends.forget(container.id)
        self._names.give_back(container.data.name, container.id)
        self._attempts.forget(container.data.name)
        self._events.container(container, cri.CONTAINER_DELETED_EVENT)

    def io_directory(self, id: str) -> Path:
        """Return where a container has its FIFOs, and those of its execs: they go with it, also after a crash."""
        return self._state / id / "io"

    def io(self, container: Container) -> ProcessIO:
        """Return the streams of a container that runs. Raises Unknown."""
        return self._ends.io(container.id)

    async def spec(self, container: Container) -> Spec:
        """Return a container's spec."""
        return spec_of(await self.namespace.containers.get(container.id))

    async def recover(self) -> None:
        """Find the containers of an earlier daemon, as they are now."""
        rows = await self.namespace.containers.list(f'labels."{KIND}"==container')
        await asyncio.gather(*(self._recover(row) for row in rows))
        await end_orphans(self.namespace, {pod.id for pod in self._pods.index})
        await asyncio.to_thread(self.creation.sweep, {row.id for row in rows})

    async def _recover(self, row: Row) -> None:
        try:
            container = container_of(row, self._root / row.id)
        except Error as error:
            logger.warning("container %s is not understood: %s", row.id, error)
            return
        if container is None:
            return
        self.index.add(container.id, container)
        try:
            self._names.take(container.data.name, container.id)
            await self._find_task(container)
        except (Error, OSError) as error:
            # It is there, and its client can remove it; the others are served.
            logger.warning("container %s is not all recovered: %s", container.id, error)
        if container.status.state == cri.CONTAINER_EXITED:
            self._steps.had_stopped(container.id)

    async def _find_task(self, container: Container) -> None:
        """Go on with a container as its task is now."""
        try:
            process = await self.namespace.tasks.get(container.id)
        except Error as error:
            self._lost(container, error)
            return
        await self._adopt(container, process)

    def _lost(self, container: Container, error: Error) -> None:
        """Record what can be known of a container whose task is gone."""
        if container.status.state == cri.CONTAINER_RUNNING or container.status.unknown:
            if isinstance(error, NotFound):
                container.change(finished_at=time.time_ns(), exit_code=UNKNOWN_EXIT, reason="Unknown", unknown=False)
            else:
                container.change(unknown=True)

    async def _adopt(self, container: Container, process: Process) -> None:
        """Go on with a container whose task is there."""
        if process.status == TaskStatus.CREATED:
            await self._ends.withdraw_task(container.id)  # the daemon died between create and start
            return
        io = await asyncio.to_thread(reopened, container, process, self._config)
        self._ends.keep(container.id, io)
        io.start()
        if not container.status.started_at:
            container.change(started_at=time.time_ns())
        waiting = asyncio.create_task(self.namespace.tasks.wait(container.id))
        self._ends.watch(container, waiting)

    async def close(self) -> None:
        """Let go of every container; they go on."""
        await self._attempts.close()
        await self._ends.close()
