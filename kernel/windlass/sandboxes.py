"""Contract: sandbox records, the metadata of shared environments for tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from windlass.plugin import PluginType, contract
from windlass.values import Payload


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox's record; ``sandboxer`` names its controller; times are nanoseconds since the epoch, UTC."""

    id: str
    runtime: str = ""
    runtime_options: Payload | None = None
    spec: Payload | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, Payload] = field(default_factory=dict)
    sandboxer: str = ""
    created_at: int = 0
    updated_at: int = 0


@contract
class SandboxStore(Protocol):
    """Keeps one namespace's sandboxes; rules in reference 3.12."""

    def get(self, id: str) -> Sandbox:
        """Raises NotFound."""
        ...

    def list(self, filters: Sequence[str] = ()) -> list[Sandbox]:
        """Return those that match one of ``filters``, by ID."""
        ...

    def create(self, sandbox: Sandbox) -> Sandbox:
        """Raises AlreadyExists, InvalidArgument."""
        ...

    def update(self, sandbox: Sandbox, fieldpaths: Sequence[str] = ()) -> Sandbox:
        """Change ``labels``, ``extensions``, ``spec``, ``runtime`` or one ``labels.<key>``, ``extensions.<key>``."""
        ...

    def delete(self, id: str) -> None:
        """Raises NotFound."""
        ...


@contract
class SandboxStores(Protocol):
    """Where the sandbox records of every namespace are found."""

    def sandboxes(self, namespace: str) -> SandboxStore:
        """Return a namespace's sandboxes. Raises FailedPrecondition, InvalidArgument (namespace)."""
        ...


SANDBOX_STORES: PluginType[SandboxStores] = PluginType("io.containerd.sandbox.store.v1")
