"""A sandbox controller behind a socket, and sandboxes' records as messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from windlass.contracts.rpc import NAMESPACE
from windlass.contracts.sandboxes import Sandbox, SandboxOptions, SandboxStatus, StartedSandbox
from windlass.contracts.tasks import Exit, Metric
from windlass.contracts.values import Payload, Platform
from windlass.errors import Unavailable
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2 as pb
from windlass_api.containerd.services.sandbox.v1.sandbox_pb2_grpc import ControllerStub
from windlass_remote.messages import from_any, from_timestamp, to_any, to_mounts
from windlass_remote.peer import TIMEOUT, meaning, options, target
from windlass_remote.records import to_record

if TYPE_CHECKING:
    # Of type checkers alone.
    from windlass_api.containerd.services.sandbox.v1.sandbox_pb2_grpc import ControllerAsyncStub

AGAIN = (0.1, 10.0)
"""Seconds before someone who waits for a sandbox asks again, at first and at most, while the controller is away."""

M = TypeVar("M", bound=Message)


class RemoteSandboxController:
    """A `windlass.contracts.sandboxes.SandboxController`: ``name``, of the peer's. ``described`` is for messages.

    Nothing is connected before the first call.
    """

    def __init__(self, address: str, name: str, described: str = "", timeout: float = TIMEOUT) -> None:
        self._address = address
        self._name = name
        self._described = described or f"sandbox controller {name}"
        self._timeout = timeout
        self._channel: grpc.aio.Channel | None = None

    async def close(self) -> None:
        """End the connection; calls under way fail."""
        if self._channel is not None:
            await self._channel.close()

    async def create(self, namespace: str, sandbox: Sandbox, options: SandboxOptions) -> None:
        """Prepare a sandbox."""
        request = pb.ControllerCreateRequest(
            sandbox_id=sandbox.id,
            rootfs=to_mounts(options.rootfs),
            options=to_any(options.options),
            netns_path=options.netns_path,
            annotations=options.annotations,
            sandbox=to_record(sandbox),
            sandboxer=self._name,
        )
        await self._call(self._stub.Create, request, namespace)

    async def start(self, namespace: str, id: str) -> StartedSandbox:
        """Start a sandbox."""
        request = pb.ControllerStartRequest(sandbox_id=id, sandboxer=self._name)
        answer = await self._call(self._stub.Start, request, namespace)
        return StartedSandbox(
            id=id,
            pid=answer.pid,
            created_at=from_timestamp(answer.created_at),
            labels=dict(answer.labels),
            address=answer.address,
            version=answer.version,
            spec=from_any(answer.spec),
        )

    async def platform(self, namespace: str, id: str) -> Platform:
        """Return the platform of a sandbox's containers."""
        request = pb.ControllerPlatformRequest(sandbox_id=id, sandboxer=self._name)
        found = (await self._call(self._stub.Platform, request, namespace)).platform
        return Platform(found.os, found.architecture, found.variant, found.os_version)

    async def stop(self, namespace: str, id: str, timeout: float) -> None:
        """End what runs in a sandbox."""
        request = pb.ControllerStopRequest(sandbox_id=id, timeout_secs=int(timeout), sandboxer=self._name)
        await self._call(self._stub.Stop, request, namespace, self._timeout + timeout)

    async def wait(self, namespace: str, id: str) -> Exit:
        """Return how a sandbox ended, however long that takes, and however often the controller starts anew."""
        request = pb.ControllerWaitRequest(sandbox_id=id, sandboxer=self._name)
        pause, most = AGAIN
        while True:
            try:
                answer = await self._call(self._stub.Wait, request, namespace, None)
            except Unavailable:
                await asyncio.sleep(pause)
                pause = min(2 * pause, most)
            else:
                return Exit(0, answer.exit_status, from_timestamp(answer.exited_at))

    async def status(self, namespace: str, id: str, verbose: bool = False) -> SandboxStatus:
        """Describe a sandbox."""
        request = pb.ControllerStatusRequest(sandbox_id=id, verbose=verbose, sandboxer=self._name)
        answer = await self._call(self._stub.Status, request, namespace)
        return SandboxStatus(
            id=id,
            pid=answer.pid,
            state=answer.state,
            info=dict(answer.info),
            created_at=from_timestamp(answer.created_at),
            exited_at=from_timestamp(answer.exited_at),
            extra=from_any(answer.extra),
            address=answer.address,
            version=answer.version,
        )

    async def shutdown(self, namespace: str, id: str) -> None:
        """Free what a sandbox holds."""
        request = pb.ControllerShutdownRequest(sandbox_id=id, sandboxer=self._name)
        await self._call(self._stub.Shutdown, request, namespace)

    async def metrics(self, namespace: str, id: str) -> Metric:
        """Measure a sandbox."""
        request = pb.ControllerMetricsRequest(sandbox_id=id, sandboxer=self._name)
        found = (await self._call(self._stub.Metrics, request, namespace)).metrics
        return Metric(from_timestamp(found.timestamp), found.id or id, from_any(found.data) or Payload("", b""))

    async def update(self, namespace: str, sandbox: Sandbox, fieldpaths: Sequence[str] = ()) -> None:
        """Tell of changes to a record."""
        request = pb.ControllerUpdateRequest(
            sandbox_id=sandbox.id, sandboxer=self._name, sandbox=to_record(sandbox), fields=fieldpaths
        )
        await self._call(self._stub.Update, request, namespace)

    @property
    def _stub(self) -> ControllerAsyncStub:
        # Made on the loop, which a channel belongs to; plugins start in threads.
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(target(self._address), options(self._address))
        return ControllerStub(self._channel)

    async def _call(
        self, method: Callable[..., Awaitable[M]], request: Message, namespace: str, timeout: float | None = 0
    ) -> M:
        """Make a call, for at most ``timeout`` seconds; 0 is the usual, None is for ever."""
        seconds = self._timeout if timeout == 0 else timeout
        try:
            return await method(request, timeout=seconds, metadata=((NAMESPACE, namespace),))
        except grpc.aio.AioRpcError as error:
            raise meaning(error, self._described, self._address, seconds or 0) from None
