"""The leases service: what keeps things from garbage collection while a client works on them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from windlass_api.containerd.services.leases.v1 import leases_pb2 as pb
from windlass_api.containerd.services.leases.v1.leases_pb2_grpc import LeasesStub
from windlass_client.connection import Connection

EXPIRE = "containerd.io/gc.expire"


class Leases:
    """Leases of the namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = LeasesStub(connection.channel)

    async def create(self, hours: float, label: str = "", id: str = "", labels: Mapping[str, str] | None = None) -> str:
        """Create a lease and return its id; it expires by itself unless ``hours`` is 0.

        ``label`` says what it is for. Raises AlreadyExists for an id that is taken.
        """
        labels = dict(labels or {}) | ({"windlass.client/for": label} if label else {})
        if hours:
            labels[EXPIRE] = (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
        id = id or f"windlass-{secrets.token_hex(8)}"
        await self._connection.call(self._stub.Create, pb.CreateRequest(id=id, labels=labels))
        return id

    async def delete(self, id: str, sync: bool = False) -> None:
        """Delete a lease; with ``sync`` what only it kept is gone on return. Raises NotFound."""
        await self._connection.call(self._stub.Delete, pb.DeleteRequest(id=id, sync=sync))

    async def list(self, *filters: str) -> Sequence[pb.Lease]:
        """Return the leases that match one of the filters."""
        return (await self._connection.call(self._stub.List, pb.ListRequest(filters=filters))).leases

    async def add(self, lease: str, kind: str, id: str) -> None:
        """Let a lease keep one more thing; kinds are ``content``, ``ingests``, ``snapshots/<snapshotter>``."""
        resource = pb.Resource(id=id, type=kind)
        await self._connection.call(self._stub.AddResource, pb.AddResourceRequest(id=lease, resource=resource))
