"""The sandbox controller: sandboxes that are namespaces with names (docs/containerd 3.12)."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from windlass.contracts.sandboxes import Sandbox, SandboxController, SandboxOptions, SandboxStatus, StartedSandbox
from windlass.contracts.tasks import Exit, Metric
from windlass.contracts.values import Platform, check_identifier, host_architecture
from windlass.contracts.zygote import Zygote
from windlass.errors import AlreadyExists, Error, FailedPrecondition, Internal, NotFound, Unimplemented
from windlass.gate import offload
from windlass.typing import override
from windlass_linux import namespaces
from windlass_sandboxer import settings
from windlass_sandboxer.pod import NAMES, Pod, load

logger = logging.getLogger(__name__)

READY, NOT_READY = "SANDBOX_READY", "SANDBOX_NOTREADY"
KILLED = 137


class PinnedSandboxes(SandboxController):
    """Sandboxes by namespace and ID; each call reads what the disk says, so an earlier daemon's are there as well."""

    def __init__(self, state: Path, zygote: Zygote) -> None:
        """Keep sandboxes below ``state``."""
        self._state = state
        self._zygote = zygote
        self._ended: dict[Path, asyncio.Event] = {}

    def _directory(self, namespace: str, id: str) -> Path:
        check_identifier("namespace", namespace)
        check_identifier("sandbox", id)
        return self._state / namespace / id

    async def _pod(self, namespace: str, id: str) -> Pod:
        pod = await asyncio.to_thread(load, self._directory(namespace, id))
        if pod is None:
            raise NotFound(f"sandbox {id} does not exist")
        return pod

    @override
    async def create(self, namespace: str, sandbox: Sandbox, options: SandboxOptions) -> None:
        directory = self._directory(namespace, sandbox.id)
        pod = Pod(directory, settings.read(options.options), options.netns_path, labels=dict(sandbox.labels))
        if await asyncio.to_thread(load, directory) is not None:
            raise AlreadyExists(f"sandbox {sandbox.id} already exists; shut it down first")
        try:
            await asyncio.to_thread(pod.save)
        except OSError as error:
            await asyncio.to_thread(_sweep, directory)
            raise Internal(f"sandbox {sandbox.id} cannot be kept: {error}") from error

    @override
    async def start(self, namespace: str, id: str) -> StartedSandbox:
        pod = await self._pod(namespace, id)
        if pod.created_at:
            raise FailedPrecondition(f"sandbox {id} was started already")
        try:
            await self._started(pod)
        except (OSError, Error) as error:
            await asyncio.to_thread(pod.remove)
            kind = type(error) if isinstance(error, Error) else Internal
            raise kind(f"sandbox {id} cannot be started: {error}") from error
        return StartedSandbox(id, pod.pid, pod.created_at, pod.labels)

    async def _started(self, pod: Pod) -> None:
        """Start a pod. A caller that is cancelled waits for the outcome, which is then there for it to shut down."""
        starting = asyncio.ensure_future(offload(self._start, pod))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait({starting})
            raise

    def _start(self, pod: Pod) -> None:
        pod.start(self._zygote)
        pod.created_at = time.time_ns()
        try:
            pod.save()
        except BaseException:
            pod.stop()
            raise

    @override
    async def platform(self, namespace: str, id: str) -> Platform:
        await self._pod(namespace, id)
        return Platform("linux", host_architecture())

    @override
    async def stop(self, namespace: str, id: str, timeout: float) -> None:
        try:
            pod = await self._pod(namespace, id)
        except NotFound:
            return
        if not pod.exited_at:
            await asyncio.to_thread(self._stop, pod)
        self._event(pod.directory).set()

    def _stop(self, pod: Pod) -> None:
        pod.stop()
        pod.exited_at = time.time_ns()
        try:
            pod.save()
        except OSError as error:
            # A full disk holds up no end. Who reads the earlier record finds that its namespaces are gone.
            logger.warning("that sandbox %s was stopped is not on the disk: %s", pod.id, error)

    @override
    async def wait(self, namespace: str, id: str) -> Exit:
        pod = await self._pod(namespace, id)
        if pod.ready:
            await self._until_ended(pod)
            pod = await self._pod(namespace, id)
        return Exit(pod.pid, KILLED, pod.exited_at or time.time_ns())

    async def _until_ended(self, pod: Pod) -> None:
        """Return when a pod has been stopped, or its init has ended."""
        stopped = self._event(pod.directory)
        if not pod.pid:
            await stopped.wait()
            return
        loop = asyncio.get_running_loop()
        try:
            pidfd = os.pidfd_open(pod.pid)
        except ProcessLookupError:
            return
        try:
            loop.add_reader(pidfd, stopped.set)
            if pod.alive():
                await stopped.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)

    def _event(self, directory: Path) -> asyncio.Event:
        return self._ended.setdefault(directory, asyncio.Event())

    @override
    async def status(self, namespace: str, id: str, verbose: bool = False) -> SandboxStatus:
        try:
            pod = await self._pod(namespace, id)
        except NotFound:
            return SandboxStatus(id, state=NOT_READY)
        state = READY if await asyncio.to_thread(lambda: pod.ready) else NOT_READY
        return SandboxStatus(id, pod.pid, state, pod.namespaces(), pod.created_at, pod.exited_at)

    @override
    async def shutdown(self, namespace: str, id: str) -> None:
        directory = self._directory(namespace, id)
        if await asyncio.to_thread(load, directory) is None:
            await asyncio.to_thread(_sweep, directory)
        pod = await self._pod(namespace, id)
        await self.stop(namespace, id, 0)
        await asyncio.to_thread(pod.remove)
        self._ended.pop(pod.directory, None)

    @override
    async def metrics(self, namespace: str, id: str) -> Metric:
        await self._pod(namespace, id)
        raise Unimplemented("a sandbox without processes uses nothing; measure its containers")

    @override
    async def update(self, namespace: str, sandbox: Sandbox, fieldpaths: Sequence[str] = ()) -> None:
        await self._pod(namespace, sandbox.id)


def _sweep(directory: Path) -> None:
    """Remove what there is of a sandbox whose record was never written, or is damaged."""
    for name in NAMES:
        namespaces.remove(directory / name)
    shutil.rmtree(directory, ignore_errors=True)
