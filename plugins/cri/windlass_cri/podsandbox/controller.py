"""The sandbox controller: each sandbox is a container, whose namespaces the pod's containers join."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from windlass.contracts.containers import Container as Row
from windlass.contracts.sandboxes import Sandbox, SandboxController, SandboxOptions, SandboxStatus, StartedSandbox
from windlass.contracts.tasks import CreateOptions, Exit, Metric, Status
from windlass.contracts.values import Platform, host_architecture
from windlass.errors import AlreadyExists, Error, FailedPrecondition, InvalidArgument, NotFound
from windlass.records import dataclass
from windlass.typing import override
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import Runtime, RuntimeConfig
from windlass_cri.pods.files import PodFiles
from windlass_cri.pods.handlers import Handlers
from windlass_cri.pods.leases import CONTAINER
from windlass_cri.podsandbox import pausespec
from windlass_cri.record import KIND, Pod, pod_of
from windlass_cri.spec import userns
from windlass_cri.spec.users import with_groups
from windlass_images import platforms
from windlass_images.dockersave import full_name
from windlass_linux import namespaces
from windlass_local import launch, tasks
from windlass_local.inside import LocalNamespace, Running
from windlass_local.store import Parts
from windlass_local.waiting import unless_gone
from windlass_oci.runtime_spec import Spec
from windlass_oci.users import Accounts, is_numeric

logger = logging.getLogger(__name__)

READY, NOT_READY = "SANDBOX_READY", "SANDBOX_NOTREADY"
SANDBOX = "sandbox"
UNKNOWN_EXIT = 255
KINDS = ("net", "ipc", "uts", "pid", "user")


@dataclass(frozen=True)
class Settings:
    """What the configuration of CRI says of pause containers."""

    runtime: RuntimeConfig
    image: str
    """The name of the image that does nothing."""
    snapshotter: str
    """Of handlers that have none of their own."""


@dataclass(frozen=True)
class _Created:
    """A sandbox between its creation and its start."""

    pod: Pod
    record: Sandbox
    sysctls: dict[str, str]


class PauseContainers(SandboxController):
    """Sandboxes by namespace and ID, which is that of their containers; an earlier daemon's are there as well."""

    def __init__(self, parts: Parts, running: Running, handlers: Handlers, settings: Settings, root: Path) -> None:
        """Find the files of pods below ``root``, where CRI makes them; user namespaces have their names there too."""
        self._parts = parts
        self._running = running
        self._handlers = handlers
        self._settings = settings
        self._root = root
        self._created: dict[tuple[str, str], _Created] = {}
        self._ends: dict[tuple[str, str], asyncio.Task[Exit]] = {}

    def _namespace(self, name: str) -> LocalNamespace:
        return LocalNamespace(self._parts, self._running, name)

    async def _row(self, namespace: str, id: str) -> Row:
        """Return a sandbox's container. Raises NotFound, also for one that holds no pod."""
        with contextlib.suppress(NotFound):
            row = await self._namespace(namespace).containers.get(id)
            if row.labels.get(KIND) == SANDBOX:
                return row
        raise NotFound(f"sandbox {id} does not exist")

    @override
    async def create(self, namespace: str, sandbox: Sandbox, options: SandboxOptions) -> None:
        pod = pod_of(sandbox)
        if pod is None:
            raise InvalidArgument(f"sandbox {sandbox.id} has no configuration of a pod; CRI makes such sandboxes")
        with contextlib.suppress(NotFound):
            await self._row(namespace, sandbox.id)
            raise AlreadyExists(f"sandbox {sandbox.id} already exists; shut it down first")
        config = cri.PodSandboxConfig.FromString(options.options.value if options.options else b"")
        self._created[namespace, sandbox.id] = _Created(pod, sandbox, dict(config.linux.sysctls))

    @override
    async def start(self, namespace: str, id: str) -> StartedSandbox:
        created = self._created.pop((namespace, id), None)
        if created is None:
            await self._row(namespace, id)
            raise FailedPrecondition(f"sandbox {id} was started already")
        within, runtime = self._namespace(namespace), self._handlers.get(created.pod.data.handler)
        try:
            launched = await self._launch(within, created, runtime)
            options = CreateOptions(launched.rootfs, runtime_path=runtime.runtime_path)
            pid = await within.tasks.create(launched.container, options)
            self._watch(namespace, id)
            await within.tasks.start(id)
        except BaseException:
            await asyncio.shield(self._undo(within, id))
            raise
        row = launched.container
        return StartedSandbox(id, pid, row.created_at or time.time_ns(), row.labels, spec=row.spec)

    async def _launch(self, namespace: LocalNamespace, created: _Created, runtime: Runtime) -> launch.Launched:
        pod, name = created.pod, full_name(self._settings.image)
        user = userns.wanted(pod.namespace_options)
        owner = await asyncio.to_thread(self._pin, pod) if user is not None and not pod.host_network else None
        snapshotter = runtime.snapshotter or self._settings.snapshotter
        labels = await userns.snapshot_labels(user, namespace, snapshotter)
        row = Row(
            pod.id,
            runtime=created.record.runtime,
            runtime_options=created.record.runtime_options,
            image=name,
            snapshotter=snapshotter,
            labels={**pod.config.labels, KIND: SANDBOX},
        )

        async def build(rootfs: launch.Rootfs) -> Spec:
            plan = pausespec.Plan(
                pod=pod,
                files=PodFiles(self._root / pod.id),
                image_name=self._settings.image,
                image=rootfs.image,
                runtime=runtime,
                settings=self._settings.runtime,
                sysctls=created.sysctls,
                user_namespace=owner,
            )
            made = await asyncio.to_thread(pausespec.build, plan)
            who = pausespec.user_name(plan)
            accounts = Accounts() if is_numeric(who) else await rootfs.accounts()
            security = pausespec.of_container(pod.config.linux.security_context)
            made["process"]["user"] = with_groups(who, accounts, security)
            return made

        return await launch.create(namespace, row, platforms.host(), build, snapshot_labels=labels, purpose=CONTAINER)

    def _pin(self, pod: Pod) -> Path:
        """Name the user namespace that owns a pod's network namespace. Blocks."""
        path = self._owner(pod.id)
        descriptor = namespaces.owner_of(Path(pod.data.netns))
        try:
            with namespaces.files_for([path]):
                namespaces.pin(f"/proc/self/fd/{descriptor}", path)
        finally:
            os.close(descriptor)
        return path

    def _owner(self, id: str) -> Path:
        return self._root / id / "user"

    async def _undo(self, namespace: LocalNamespace, id: str) -> None:
        await launch.undo(namespace, id)
        await asyncio.to_thread(self._unpin, id)

    def _unpin(self, id: str) -> None:
        if self._owner(id).exists():
            namespaces.remove(self._owner(id))

    def _watch(self, namespace: str, id: str) -> asyncio.Task[Exit]:
        """Return the task that ends with the pause container's, which it deletes."""
        known = self._ends.get((namespace, id))
        if known is None:
            known = self._ends[namespace, id] = asyncio.create_task(self._until_ended(namespace, id))
        return known

    async def _until_ended(self, namespace: str, id: str) -> Exit:
        running = self._namespace(namespace).tasks
        try:
            ended = await running.wait(id)
        except Error as error:
            logger.info("what sandbox %s ended with is not known: %s", id, error)
            ended = Exit(0, UNKNOWN_EXIT, time.time_ns())
        try:
            await unless_gone(running.delete(id))
        except Error as error:
            logger.warning("the task of sandbox %s stays until it is shut down: %s", id, error)
        return ended

    @override
    async def platform(self, namespace: str, id: str) -> Platform:
        await self._row(namespace, id)
        return Platform("linux", host_architecture())

    @override
    async def stop(self, namespace: str, id: str, timeout: float) -> None:
        try:
            await self._row(namespace, id)
        except NotFound:
            return
        # What it runs has nothing to do before its end, so there is nothing to wait for.
        await tasks.remove(self._namespace(namespace).tasks, id, force=True)

    @override
    async def wait(self, namespace: str, id: str) -> Exit:
        await self._row(namespace, id)
        return await asyncio.shield(self._watch(namespace, id))

    @override
    async def status(self, namespace: str, id: str, verbose: bool = False) -> SandboxStatus:
        try:
            row = await self._row(namespace, id)
            process = await self._namespace(namespace).tasks.get(id)
        except NotFound:
            ended = self._ends.get((namespace, id))
            known = ended is not None and ended.done() and not ended.cancelled()
            return SandboxStatus(id, state=NOT_READY, exited_at=ended.result().at if ended and known else 0)
        if process.status != Status.RUNNING:
            return SandboxStatus(id, state=NOT_READY, created_at=row.created_at)
        kinds = [kind for kind in KINDS if kind != "user" or self._owner(id).exists()]
        info = {kind: f"/proc/{process.pid}/ns/{kind}" for kind in kinds}
        return SandboxStatus(id, process.pid, READY, info, row.created_at)

    @override
    async def shutdown(self, namespace: str, id: str) -> None:
        if self._created.pop((namespace, id), None) is not None:
            return
        await self._row(namespace, id)
        await self.stop(namespace, id, 0)
        await unless_gone(launch.remove(self._namespace(namespace), id, force=True))
        await asyncio.to_thread(self._unpin, id)
        if (watching := self._ends.pop((namespace, id), None)) is not None:
            watching.cancel()

    @override
    async def metrics(self, namespace: str, id: str) -> Metric:
        await self._row(namespace, id)
        found = await self._running.tasks.metrics(namespace, [id])
        if not found:
            raise NotFound(f"sandbox {id} does not run")
        return found[0]

    @override
    async def update(self, namespace: str, sandbox: Sandbox, fieldpaths: Sequence[str] = ()) -> None:
        await self._row(namespace, sandbox.id)

    async def close(self) -> None:
        """Watch no sandbox any more; they go on."""
        for task in self._ends.values():
            task.cancel()
