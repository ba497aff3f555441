"""Contract: leases, which keep things from garbage collection while somebody works on them."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Protocol

from windlass.plugin import PluginType, contract
from windlass.records import dataclass

LABEL_EXPIRE = "containerd.io/gc.expire"
LABEL_FLAT = "containerd.io/gc.flat"


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease; ``created_at`` is nanoseconds since the epoch, UTC."""

    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: int = 0


@dataclass(frozen=True, slots=True)
class Resource:
    """What a lease holds: type ``content``, ``ingests``, ``images`` or ``snapshots/<snapshotter>``."""

    id: str
    type: str


@contract
class LeaseStore(Protocol):
    """Keeps one namespace's leases; rules in docs/containerd 3.8."""

    def create(self, id: str = "", labels: Mapping[str, str] | None = None) -> Lease:
        """Create a lease, with a random ID if none is given. Raises AlreadyExists."""
        ...

    def delete(self, id: str) -> None:
        """Raises NotFound."""
        ...

    def list(self, filters: Sequence[str] = ()) -> list[Lease]:
        """Return those that match one of ``filters``, by ID."""
        ...

    def add_resource(self, id: str, resource: Resource) -> None:
        """Hold a resource, whether it exists or not. Raises NotFound (lease), InvalidArgument, Unimplemented (type)."""
        ...

    def delete_resource(self, id: str, resource: Resource) -> None:
        """Release a resource. Raises as `add_resource`."""
        ...

    def resources(self, id: str) -> builtins.list[Resource]:
        """Return what a lease holds, by type. Raises NotFound."""
        ...


@contract
class LeaseStores(Protocol):
    """Where the leases of every namespace are found."""

    def leases(self, namespace: str) -> LeaseStore:
        """Return a namespace's leases. Raises FailedPrecondition, InvalidArgument (namespace)."""
        ...


LEASE_STORES: PluginType[LeaseStores] = PluginType("io.containerd.lease.v1", LeaseStores)
