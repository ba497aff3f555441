"""Contract: sandboxes, shared environments for tasks: their records, and the controllers that run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Protocol

from windlass.contracts.mounts import Mount
from windlass.contracts.tasks import Exit, Metric
from windlass.contracts.values import Payload, Platform
from windlass.plugin import PluginType, contract
from windlass.records import dataclass


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
    """Keeps one namespace's sandboxes; rules in docs/containerd 3.12."""

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


SANDBOX_STORES: PluginType[SandboxStores] = PluginType("io.containerd.sandbox.store.v1", SandboxStores)


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """How to create a sandbox; ``options`` are the client's, the runtime's own are in the record."""

    rootfs: tuple[Mount, ...] = ()
    options: Payload | None = None
    netns_path: str = ""
    """Network namespace to use; "" leaves it to the controller."""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartedSandbox:
    """A sandbox that runs; ``address`` and ``version`` say where its containers' Task API is, if it says so."""

    id: str
    pid: int = 0
    created_at: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    version: int = 0
    spec: Payload | None = None


@dataclass(frozen=True, slots=True)
class SandboxStatus:
    """A sandbox as its controller sees it; ``state`` is in the controller's own words, times are 0 when unknown."""

    id: str
    pid: int = 0
    state: str = ""
    info: Mapping[str, str] = field(default_factory=dict)
    created_at: int = 0
    exited_at: int = 0
    extra: Payload | None = None
    address: str = ""
    version: int = 0


@contract
class SandboxController(Protocol):
    """Runs sandboxes; semantics and errors in docs/containerd 3.12. Everything waits, so everything is async."""

    async def create(self, namespace: str, sandbox: Sandbox, options: SandboxOptions) -> None:
        """Prepare a sandbox; nothing of it runs. Raises AlreadyExists, Unimplemented (runtime has no sandboxes)."""
        ...

    async def start(self, namespace: str, id: str) -> StartedSandbox:
        """Start a created sandbox. When that fails it is gone."""
        ...

    async def platform(self, namespace: str, id: str) -> Platform:
        """Return what containers in the sandbox have to be for. Raises NotFound."""
        ...

    async def stop(self, namespace: str, id: str, timeout: float) -> None:
        """End what runs in the sandbox, after ``timeout`` seconds by force; what is gone already is not an error."""
        ...

    async def wait(self, namespace: str, id: str) -> Exit:
        """Return when the sandbox has exited. Raises NotFound."""
        ...

    async def status(self, namespace: str, id: str, verbose: bool = False) -> SandboxStatus:
        """Describe a sandbox; one that the controller does not know has exited."""
        ...

    async def shutdown(self, namespace: str, id: str) -> None:
        """Free everything that the sandbox holds; tasks that are still in it end. Raises NotFound."""
        ...

    async def metrics(self, namespace: str, id: str) -> Metric:
        """Measure the sandbox. Raises NotFound, Unimplemented."""
        ...

    async def update(self, namespace: str, sandbox: Sandbox, fieldpaths: Sequence[str] = ()) -> None:
        """Inform a running sandbox of changes to its record."""
        ...


SANDBOX_CONTROLLER: PluginType[SandboxController] = PluginType("io.containerd.sandbox.controller.v1", SandboxController)
