"""A daemon's sandbox controller, through its API, as the suite sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

from windlass.errors import Error
from windlass.sandboxes import Sandbox, SandboxOptions, SandboxStatus, StartedSandbox
from windlass.tasks import Exit, Metric
from windlass.values import Payload, Platform
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2 as pb
from windlass_api.containerd.services.sandbox.v1.sandbox_pb2_grpc import ControllerStub, StoreStub
from windlass_api.containerd.types import sandbox_pb2 as types_pb
from windlass_remote.messages import from_timestamp
from windlass_remote.peer import Peer

M = TypeVar("M", bound=Message)


class RemoteSandboxController:
    """As much of `windlass.sandboxes.SandboxController` as its suite uses; records are kept in the daemon's store."""

    def __init__(self, peer: Peer, name: str) -> None:
        """Ask the controller ``name``."""
        self._peer = peer
        self._name = name
        self._controller = ControllerStub(peer.channel)
        self._store = StoreStub(peer.channel)

    async def _call(self, method: Callable[..., M], request: Message, namespace: str) -> M:
        return await asyncio.to_thread(self._peer.call, method, request, 0, namespace)

    async def create(self, namespace: str, sandbox: Sandbox, options: SandboxOptions) -> None:
        """Record a sandbox, and prepare it."""
        runtime = types_pb.Sandbox.Runtime(name=sandbox.runtime)
        message = types_pb.Sandbox(sandbox_id=sandbox.id, runtime=runtime, sandboxer=self._name)
        await self._call(self._store.Create, pb.StoreCreateRequest(sandbox=message), namespace)
        request = pb.ControllerCreateRequest(sandbox_id=sandbox.id, sandboxer=self._name, sandbox=message)
        try:
            await self._call(self._controller.Create, request, namespace)
        except Error:
            await self._call(self._store.Delete, pb.StoreDeleteRequest(sandbox_id=sandbox.id), namespace)
            raise

    async def start(self, namespace: str, id: str) -> StartedSandbox:
        """Start a sandbox."""
        request = pb.ControllerStartRequest(sandbox_id=id, sandboxer=self._name)
        answer = await self._call(self._controller.Start, request, namespace)
        return StartedSandbox(answer.sandbox_id, answer.pid, address=answer.address, version=answer.version)

    async def platform(self, namespace: str, id: str) -> Platform:
        """Return the platform."""
        request = pb.ControllerPlatformRequest(sandbox_id=id, sandboxer=self._name)
        found = (await self._call(self._controller.Platform, request, namespace)).platform
        return Platform(found.os, found.architecture, found.variant)

    async def stop(self, namespace: str, id: str, timeout: float) -> None:
        """Stop a sandbox."""
        request = pb.ControllerStopRequest(sandbox_id=id, sandboxer=self._name, timeout_secs=int(timeout))
        await self._call(self._controller.Stop, request, namespace)

    async def wait(self, namespace: str, id: str) -> Exit:
        """Wait for a sandbox."""
        request = pb.ControllerWaitRequest(sandbox_id=id, sandboxer=self._name)
        answer = await self._call(self._controller.Wait, request, namespace)
        return Exit(0, answer.exit_status, from_timestamp(answer.exited_at))

    async def status(self, namespace: str, id: str, verbose: bool = False) -> SandboxStatus:
        """Describe a sandbox."""
        request = pb.ControllerStatusRequest(sandbox_id=id, sandboxer=self._name, verbose=verbose)
        answer = await self._call(self._controller.Status, request, namespace)
        return SandboxStatus(answer.sandbox_id, answer.pid, answer.state, dict(answer.info))

    async def shutdown(self, namespace: str, id: str) -> None:
        """Free a sandbox, and forget its record."""
        try:
            request = pb.ControllerShutdownRequest(sandbox_id=id, sandboxer=self._name)
            await self._call(self._controller.Shutdown, request, namespace)
        finally:
            try:
                await self._call(self._store.Delete, pb.StoreDeleteRequest(sandbox_id=id), namespace)
            except Error:
                pass  # it had none; what the controller says is what matters

    async def metrics(self, namespace: str, id: str) -> Metric:
        """Measure a sandbox."""
        request = pb.ControllerMetricsRequest(sandbox_id=id, sandboxer=self._name)
        found = (await self._call(self._controller.Metrics, request, namespace)).metrics
        return Metric(from_timestamp(found.timestamp), found.id, Payload(found.data.type_url, found.data.value))

    async def update(self, namespace: str, sandbox: Sandbox, fieldpaths: object = ()) -> None:
        """Let a sandbox know of changes."""
        message = types_pb.Sandbox(sandbox_id=sandbox.id)
        request = pb.ControllerUpdateRequest(sandbox_id=sandbox.id, sandboxer=self._name, sandbox=message)
        await self._call(self._controller.Update, request, namespace)
