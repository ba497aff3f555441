"""Contract: the namespaces, each one tenant's scope of names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Protocol

from windlass.plugin import contract
from windlass.records import dataclass

LABEL_SHAREABLE = "containerd.io/namespace.shareable"
LABEL_RUNTIME = "containerd.io/defaults/runtime"
LABEL_SNAPSHOTTER = "containerd.io/defaults/snapshotter"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A tenant's scope; it comes into being with the first write inside it."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@contract
class NamespaceStore(Protocol):
    """Keeps namespaces and their labels; rules in docs/containerd 3.4. Publishes ``/namespaces/*``."""

    def get(self, name: str) -> Namespace:
        """Return a namespace; one that does not exist has no labels."""
        ...

    def list(self) -> list[Namespace]:
        """Return all, by name."""
        ...

    def create(self, namespace: Namespace) -> Namespace:
        """Raises AlreadyExists, InvalidArgument."""
        ...

    def update(self, namespace: Namespace, fieldpaths: Sequence[str] = ()) -> Namespace:
        """Set ``labels.<key>`` of ``fieldpaths``, or replace all labels; creates an unknown namespace."""
        ...

    def delete(self, name: str) -> None:
        """Raises NotFound; FailedPrecondition while images, blobs, containers or snapshots remain, listing them."""
        ...
