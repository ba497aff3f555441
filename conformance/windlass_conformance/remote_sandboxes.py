"""A daemon's sandbox controller, through its API, with a record in the daemon's store for each sandbox."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from windlass.contracts.sandboxes import Sandbox, SandboxOptions
from windlass.errors import Error
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2 as pb
from windlass_api.containerd.services.sandbox.v1.sandbox_pb2_grpc import StoreStub
from windlass_remote.peer import Peer
from windlass_remote.records import to_record
from windlass_remote.sandboxes import RemoteSandboxController


class RecordedSandboxController(RemoteSandboxController):
    """A `windlass.contracts.sandboxes.SandboxController` that does what a client has to do besides."""

    def __init__(self, peer: Peer, name: str) -> None:
        """Ask the controller ``name`` of the daemon."""
        super().__init__(peer.address, name)
        self._peer = peer
        self._store = StoreStub(peer.channel)

    async def create(self, namespace: str, sandbox: Sandbox, options: SandboxOptions) -> None:
        """Record a sandbox, and prepare it."""
        request = pb.StoreCreateRequest(sandbox=to_record(sandbox))
        await asyncio.to_thread(self._peer.call, self._store.Create, request, 0, namespace)
        try:
            await super().create(namespace, sandbox, options)
        except Error:
            await self._forget(namespace, sandbox.id)
            raise

    async def shutdown(self, namespace: str, id: str) -> None:
        """Free a sandbox, and forget its record."""
        try:
            await super().shutdown(namespace, id)
        finally:
            await self._forget(namespace, id)

    async def _forget(self, namespace: str, id: str) -> None:
        with suppress(Error):  # it had none; what the controller says is what matters
            request = pb.StoreDeleteRequest(sandbox_id=id)
            await asyncio.to_thread(self._peer.call, self._store.Delete, request, 0, namespace)
