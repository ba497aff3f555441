"""The Sandbox service of a shim: requests to its sandbox, answers from it."""

from __future__ import annotations

import os
import time

from windlass.errors import AlreadyExists, FailedPrecondition, NotFound
from windlass_shim_runc import messages
from windlass_shim_runc.sandbox import Sandbox
from windlass_shim_runc.shim import check_identifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from windlass_shim_runc.inventory import Inventory
    from windlass_shim_runc.server import Method

SANDBOX = "containerd.runtime.sandbox.v1.Sandbox"

READY, NOT_READY = "SANDBOX_READY", "SANDBOX_NOTREADY"
"""The words that the CRI has for it."""

LONGEST_GRACE = 3600
"""More seconds than any client waits for containers to end by themselves."""

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""As in `windlass.contracts.values`, which would bring dataclasses into every shim."""


class SandboxRequest(messages.Message):
    """Every request: the fields that are not here are for sandboxes with a network or a machine of their own."""

    sandbox_id = ""


class StopSandboxRequest(messages.Message):
    """containerd.runtime.sandbox.v1.StopSandboxRequest."""

    sandbox_id = ""
    timeout_secs = 0


class StartSandboxResponse(messages.Message):
    """containerd.runtime.sandbox.v1.StartSandboxResponse."""

    pid = 0
    created_at = messages.Timestamp()


class Platform(messages.Message):
    """containerd.types.Platform."""

    os = ""
    architecture = ""


class PlatformResponse(messages.Message):
    """containerd.runtime.sandbox.v1.PlatformResponse."""

    platform = Platform()


class SandboxStatusResponse(messages.Message):
    """containerd.runtime.sandbox.v1.SandboxStatusResponse."""

    sandbox_id = ""
    pid = 0
    state = ""
    info: tuple[messages.KeyValue, ...] = (messages.KeyValue(),)
    created_at = messages.Timestamp()
    exited_at = messages.Timestamp()


SANDBOX_METHODS: Mapping[str, Method] = {
    "CreateSandbox": (SandboxRequest, "create_sandbox"),
    "StartSandbox": (SandboxRequest, "start_sandbox"),
    "Platform": (SandboxRequest, "platform"),
    "StopSandbox": (StopSandboxRequest, "stop_sandbox"),
    "WaitSandbox": (SandboxRequest, "wait_sandbox"),
    "SandboxStatus": (SandboxRequest, "sandbox_status"),
    "PingSandbox": (SandboxRequest, "ping_sandbox"),
    "ShutdownSandbox": (SandboxRequest, "shutdown_sandbox"),
}
"""What `SandboxService` serves."""


class SandboxService:
    """Serves the sandbox of a shim."""

    def __init__(self, inventory: Inventory, on_shutdown: Callable[[], None]) -> None:
        self._inventory = inventory
        self._shim = inventory.shim
        self._on_shutdown = on_shutdown

    async def create_sandbox(self, request: SandboxRequest) -> None:
        """Begin as this sandbox's shim."""
        check_identifier("sandbox", request.sandbox_id)
        if self._inventory.sandbox is not None:
            raise AlreadyExists(f"this shim is that of sandbox {self._inventory.sandbox.id} already")
        self._inventory.sandbox = Sandbox(self._shim.loop, request.sandbox_id, time.time_ns())

    async def start_sandbox(self, request: SandboxRequest) -> StartSandboxResponse:
        """Let it be ready."""
        sandbox = self._found(request.sandbox_id)
        if sandbox.exited.is_set:
            raise FailedPrecondition(f"sandbox {sandbox.id} has been stopped; create another one")
        sandbox.started = True
        return StartSandboxResponse(pid=self._shim.pid, created_at=messages.timestamp(sandbox.created_at))

    async def platform(self, request: SandboxRequest) -> PlatformResponse:
        """Return what containers have to be made for: this machine."""
        self._found(request.sandbox_id)
        machine = os.uname().machine
        return PlatformResponse(platform=Platform(os="linux", architecture=ARCHITECTURES.get(machine, machine)))

    async def stop_sandbox(self, request: StopSandboxRequest) -> None:
        """End its containers, which stay until they are deleted."""
        sandbox = self._found(request.sandbox_id)
        await sandbox.stop([*self._inventory.containers.values()], min(request.timeout_secs, LONGEST_GRACE))

    async def wait_sandbox(self, request: SandboxRequest) -> messages.WaitResponse:
        """Return when it has been stopped."""
        sandbox = self._found(request.sandbox_id)
        await sandbox.exited.rest()
        return messages.WaitResponse(exited_at=messages.timestamp(sandbox.exited_at))

    async def sandbox_status(self, request: SandboxRequest) -> SandboxStatusResponse:
        """Describe it; its pid is the shim's."""
        sandbox = self._found(request.sandbox_id)
        return SandboxStatusResponse(
            sandbox_id=sandbox.id,
            pid=self._shim.pid,
            state=READY if sandbox.is_ready else NOT_READY,
            created_at=messages.timestamp(sandbox.created_at),
            exited_at=messages.timestamp(sandbox.exited_at),
        )

    async def ping_sandbox(self, request: SandboxRequest) -> None:
        """Answer."""
        self._found(request.sandbox_id)

    async def shutdown_sandbox(self, request: SandboxRequest) -> None:
        """End it, its containers and the shim; the daemon sees to what the containers leave."""
        sandbox = self._found(request.sandbox_id)
        await sandbox.stop([*self._inventory.containers.values()], 0)
        self._inventory.sandbox = None
        self._on_shutdown()

    def _found(self, id: str) -> Sandbox:
        sandbox = self._inventory.sandbox
        if sandbox is None or sandbox.id != id:
            raise NotFound(f"sandbox {id[:76]} does not exist in this shim")
        return sandbox
