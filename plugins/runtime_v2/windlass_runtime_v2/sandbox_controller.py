"""The sandbox controller: what the daemon answers when it is asked about sandboxes (docs/containerd 3.12)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from windlass.contracts.sandboxes import (
    Sandbox,
    SandboxController,
    SandboxOptions,
    SandboxStatus,
    StartedSandbox,
)
from windlass.contracts.tasks import Exit, Metric
from windlass.contracts.values import Platform, check_identifier
from windlass.errors import Error, NotFound, Unavailable
from windlass.typing import override
from windlass_api.containerd.runtime.sandbox.v1 import sandbox_pb2 as pb
from windlass_runtime_v2 import wire
from windlass_runtime_v2.sandbox import RunningSandbox
from windlass_runtime_v2.sandbox_recovery import SandboxRecovery
from windlass_runtime_v2.sandboxes import Sandboxes
from windlass_runtime_v2.shared import Shared
from windlass_runtime_v2.task import now


class ShimSandboxes(SandboxController):
    """The sandbox controller of this daemon: every sandbox is kept by a shim."""

    def __init__(self, sandboxes: Sandboxes, recovery: SandboxRecovery) -> None:
        """Answer from what ``sandboxes`` knows, after ``recovery`` has found what was there before."""
        self._sandboxes = sandboxes
        self._recovery = recovery
        self._deadlines = sandboxes.deadlines

    @override
    async def create(self, namespace: str, sandbox: Sandbox, options: SandboxOptions) -> None:
        """Create a sandbox; one whose client goes away meanwhile is removed."""
        check_identifier("namespace", namespace)
        check_identifier("sandbox", sandbox.id)
        await self._recovery.wait_for(namespace, sandbox.id)
        job = self._sandboxes.jobs.start(self._sandboxes.create(namespace, sandbox, options))
        try:
            await Shared(job).result()
        except asyncio.CancelledError:
            self._sandboxes.jobs.start(self._undo(job))
            raise
        finally:
            del job  # an error's traceback has this frame, and the job has the error

    @override
    async def start(self, namespace: str, id: str) -> StartedSandbox:
        running = await self._known(namespace, id)
        if running is None:
            # A plain error, as of containerd: over RPC the code is UNKNOWN.
            raise Error(f"sandbox {id[:80]} does not exist; create it first")
        request = pb.StartSandboxRequest(sandbox_id=id)
        try:
            answer = await running.call("StartSandbox", request, pb.StartSandboxResponse, self._deadlines.request)
        except Error as error:
            await self._remove(running)
            raise type(error)(f"failed to start sandbox {id}: {error}") from error
        address, version = _endpoint(running)
        return StartedSandbox(
            id=id,
            pid=answer.pid,
            created_at=wire.nanoseconds(answer.created_at),
            address=address,
            version=version,
            spec=wire.payload_of(answer.spec) if answer.HasField("spec") else None,
        )

    @override
    async def platform(self, namespace: str, id: str) -> Platform:
        running = await self._find(namespace, id)
        request = pb.PlatformRequest(sandbox_id=id)
        answer = await running.call("Platform", request, pb.PlatformResponse, self._deadlines.state)
        return Platform(answer.platform.os, answer.platform.architecture, answer.platform.variant)

    @override
    async def stop(self, namespace: str, id: str, timeout: float) -> None:
        running = await self._known(namespace, id)
        if running is None:
            return
        request = pb.StopSandboxRequest(sandbox_id=id, timeout_secs=int(timeout))
        with contextlib.suppress(NotFound, Unavailable):
            await running.call("StopSandbox", request, pb.StopSandboxResponse, timeout + self._deadlines.request)

    @override
    async def wait(self, namespace: str, id: str) -> Exit:
        return await (await self._find(namespace, id)).wait()

    @override
    async def status(self, namespace: str, id: str, verbose: bool = False) -> SandboxStatus:
        running = await self._known(namespace, id)
        if running is None:
            return SandboxStatus(id, exited_at=now())
        request = pb.SandboxStatusRequest(sandbox_id=id, verbose=verbose)
        try:
            answer = await running.call("SandboxStatus", request, pb.SandboxStatusResponse, self._deadlines.state)
        except Unavailable:
            if not running.shim.gone.done():
                raise
            return SandboxStatus(id, exited_at=now())
        return wire.sandbox_status(answer, id, *_endpoint(running))

    @override
    async def shutdown(self, namespace: str, id: str) -> None:
        running = await self._find(namespace, id)
        await self._remove(running)

    @override
    async def metrics(self, namespace: str, id: str) -> Metric:
        running = await self._find(namespace, id)
        request = pb.SandboxMetricsRequest(sandbox_id=id)
        answer = await running.call("SandboxMetrics", request, pb.SandboxMetricsResponse, self._deadlines.stats)
        found = answer.metrics
        return Metric(wire.nanoseconds(found.timestamp) or now(), found.id or id, wire.payload_of(found.data))

    @override
    async def update(self, namespace: str, sandbox: Sandbox, fieldpaths: Sequence[str] = ()) -> None:
        # The Sandbox API has no call for it.
        return

    async def _known(self, namespace: str, id: str) -> RunningSandbox | None:
        await self._recovery.wait_for(namespace, id)
        return self._sandboxes.running.get((namespace, id))

    async def _find(self, namespace: str, id: str) -> RunningSandbox:
        running = await self._known(namespace, id)
        if running is None:
            raise NotFound(f"sandbox {id[:80]} does not exist")
        return running

    async def _remove(self, running: RunningSandbox) -> None:
        """Remove a sandbox to the end, even if the client that waits for it goes away."""
        await Shared(self._sandboxes.jobs.start(self._sandboxes.remove(running))).result()

    async def _undo(self, creation: asyncio.Task[RunningSandbox]) -> None:
        """Remove a sandbox whose creator has gone away: no client would remove it."""
        await asyncio.wait({creation})
        if not creation.cancelled() and creation.exception() is None:
            await self._sandboxes.remove(creation.result())


def _endpoint(running: RunningSandbox) -> tuple[str, int]:
    """Return where the Task API of a sandbox's containers is: protocol and address, and version."""
    bootstrap = running.shim.bootstrap
    return f"{bootstrap.protocol}+{bootstrap.address}", bootstrap.version
