"""Contract: containers, the specs and labels from which tasks are started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Protocol, TypeAlias

from windlass.contracts.values import Payload
from windlass.marks import CLOSED, contract, step
from windlass.records import dataclass

# Any: JSON as parsed.
Spec: TypeAlias = dict[str, Any]
"""An OCI runtime specification, which participants of steps change in place."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container's record; times are nanoseconds since the epoch, UTC."""

    id: str
    runtime: str = ""
    runtime_options: Payload | None = None
    spec: Payload | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    snapshotter: str = ""
    snapshot_key: str = ""
    extensions: Mapping[str, Payload] = field(default_factory=dict)
    sandbox: str = ""
    created_at: int = 0
    updated_at: int = 0


@contract
class ContainerStore(Protocol):
    """Keeps one namespace's containers; rules in docs/containerd 3.2. Publishes ``/containers/*``."""

    def get(self, id: str) -> Container:
        """Raises NotFound."""
        ...

    def list(self, filters: Sequence[str] = ()) -> list[Container]:
        """Return those that match one of ``filters``, by ID."""
        ...

    def create(self, container: Container) -> Container:
        """Raises AlreadyExists, InvalidArgument."""
        ...

    def update(self, container: Container, fieldpaths: Sequence[str] = ()) -> Container:
        """Change what ``fieldpaths`` name, or everything that may change. Raises NotFound, InvalidArgument."""
        ...

    def delete(self, id: str) -> None:
        """Forget the record; its task and snapshot are the caller's business. Raises NotFound."""
        ...


class ContainerHooks:
    """Steps in the life of a container, for plugins of type `windlass.plugin.HOOK`."""

    @step(CLOSED)
    def adjust_spec(self, namespace: str, container: Container, spec: Spec) -> None:
        """Change the OCI spec of a task that is about to be created."""
