"""The mounts service: mounts that build on each other, made by the daemon."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from windlass.errors import NotFound, Unimplemented
from windlass_api.containerd.services.mounts.v1 import mounts_pb2 as pb
from windlass_api.containerd.services.mounts.v1.mounts_pb2_grpc import MountsStub
from windlass_api.containerd.types.mount_pb2 import ActivationInfo, Mount
from windlass_client.connection import Connection


class Mounts:
    """Activations of the namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = MountsStub(connection.channel)

    async def activate(
        self, name: str, mounts: Sequence[Mount], labels: Mapping[str, str] | None = None, temporary: bool = False
    ) -> ActivationInfo:
        """Have mounts made; the answer's ``system`` are those that are left to make.

        Raises Unimplemented when all of them are, or the daemon has no mount manager.
        """
        request = pb.ActivateRequest(name=name, mounts=mounts, labels=labels or {}, temporary=temporary)
        return (await self._connection.call(self._stub.Activate, request)).info

    async def deactivate(self, name: str) -> None:
        """Have the mounts of a name unmounted. Raises NotFound."""
        await self._connection.call(self._stub.Deactivate, pb.DeactivateRequest(name=name))

    async def info(self, name: str) -> ActivationInfo:
        """Describe an activation. Raises NotFound."""
        return (await self._connection.call(self._stub.Info, pb.InfoRequest(name=name))).info

    async def list(self, *filters: str) -> Sequence[ActivationInfo]:
        """Return the activations that match one of the filters."""
        stream = self._connection.stream(self._stub.List, pb.ListRequest(filters=filters))
        return [message.info async for message in stream]

    @asynccontextmanager
    async def active(self, mounts: Sequence[Mount]) -> AsyncIterator[Sequence[Mount]]:
        """Yield mounts that mount(2) can make and that show the same; for a client that has a lease."""
        if len(mounts) < 2 and not any("/" in mount.type for mount in mounts):
            yield mounts
            return
        name = f"windlass-{secrets.token_hex(8)}"
        try:
            activation = await self.activate(name, mounts)
        except Unimplemented:
            yield mounts
            return
        try:
            yield activation.system
        finally:
            try:
                await self.deactivate(name)
            except NotFound:
                pass  # the lease has expired
