"""The Sandbox service of a shim: a sandbox without a process of its own, which is there as long as the shim is.

It keeps the shim alive while it has no containers, and ends them when it ends.
"""

from __future__ import annotations

import os
import time

from windlass.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition, NotFound
from windlass_shim_runc import messages
from windlass_shim_runc.host import check_identifier
from windlass_shim_runc.loop import Flag
from windlass_shim_runc.service import METHODS, SERVICES, TaskService
from windlass_shim_runc.signals import SIGKILL, SIGTERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from windlass_shim_runc.container import Container
    from windlass_shim_runc.keeper import Luggage
    from windlass_shim_runc.server import Method
    from windlass_shim_runc.service import Left

ALL_SERVICES = (*SERVICES, "containerd.runtime.sandbox.v1.Sandbox")
"""No method of the one API has the name of one of the other."""

READY, NOT_READY = "SANDBOX_READY", "SANDBOX_NOTREADY"
"""The words that the CRI has for it."""

END_TIMEOUT = 10.0
"""How long killed containers may take to end."""

LONGEST_GRACE = 3600
"""More seconds than anybody waits for containers to end by themselves."""

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


class Sandbox:
    """What the shim knows of its sandbox; times are nanoseconds since the epoch."""

    __slots__ = ("created_at", "exited", "exited_at", "id", "started")

    def __init__(self, id: str, exited: Flag) -> None:
        self.id = id
        self.created_at = time.time_ns()
        self.started = False
        self.exited_at = 0
        self.exited = exited


ALL_METHODS: Mapping[str, Method] = {
    **METHODS,
    "CreateSandbox": (SandboxRequest, "create_sandbox"),
    "StartSandbox": (SandboxRequest, "start_sandbox"),
    "Platform": (SandboxRequest, "platform"),
    "StopSandbox": (StopSandboxRequest, "stop_sandbox"),
    "WaitSandbox": (SandboxRequest, "wait_sandbox"),
    "SandboxStatus": (SandboxRequest, "sandbox_status"),
    "PingSandbox": (SandboxRequest, "ping_sandbox"),
    "ShutdownSandbox": (SandboxRequest, "shutdown_sandbox"),
}
"""What `SandboxTaskService` serves."""


class SandboxTaskService(TaskService):
    """Serves the containers of one shim, and the sandbox that they may be in."""

    def leave(self, luggage: Luggage) -> Left:
        """See `TaskService`."""
        sandbox = self.sandbox
        left = (sandbox.id, sandbox.created_at, sandbox.started, sandbox.exited_at) if sandbox else None
        return super().leave(luggage)[0], left

    def take_over(self, luggage: Luggage, left: Left) -> None:
        """See `TaskService`."""
        super().take_over(luggage, left)
        if left[1]:
            id, created_at, started, exited_at = left[1]
            self.sandbox = Sandbox(id, Flag(self._host.loop))
            self.sandbox.created_at, self.sandbox.started, self.sandbox.exited_at = created_at, started, exited_at
            if exited_at:
                self.sandbox.exited.set()

    async def create_sandbox(self, request: SandboxRequest) -> None:
        """Be this sandbox's shim from now on."""
        check_identifier("sandbox", request.sandbox_id)
        if self.sandbox is not None:
            raise AlreadyExists(f"this shim is that of sandbox {self.sandbox.id} already")
        self.sandbox = Sandbox(request.sandbox_id, Flag(self._host.loop))

    async def start_sandbox(self, request: SandboxRequest) -> StartSandboxResponse:
        """Let it be ready."""
        sandbox = self._found(request.sandbox_id)
        if sandbox.exited.is_set:
            raise FailedPrecondition(f"sandbox {sandbox.id} has been stopped; create another one")
        sandbox.started = True
        return StartSandboxResponse(pid=self._host.pid, created_at=messages.timestamp(sandbox.created_at))

    async def platform(self, request: SandboxRequest) -> PlatformResponse:
        """Tell what containers have to be for: this machine."""
        self._found(request.sandbox_id)
        machine = os.uname().machine
        return PlatformResponse(platform=Platform(os="linux", architecture=ARCHITECTURES.get(machine, machine)))

    async def stop_sandbox(self, request: StopSandboxRequest) -> None:
        """End its containers, which stay until they are deleted."""
        await self._stop(self._found(request.sandbox_id), min(request.timeout_secs, LONGEST_GRACE))

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
            pid=self._host.pid,
            state=READY if sandbox.started and not sandbox.exited_at else NOT_READY,
            created_at=messages.timestamp(sandbox.created_at),
            exited_at=messages.timestamp(sandbox.exited_at),
        )

    async def ping_sandbox(self, request: SandboxRequest) -> None:
        """Answer."""
        self._found(request.sandbox_id)

    async def shutdown_sandbox(self, request: SandboxRequest) -> None:
        """End it, its containers and the shim; the daemon sees to what the containers leave."""
        sandbox = self._found(request.sandbox_id)
        await self._stop(sandbox, 0)
        self.sandbox = None
        self._on_shutdown()

    async def _stop(self, sandbox: Sandbox, grace: float) -> None:
        running = [each for each in self.containers.values() if not each.init.exited.is_set]
        if grace:
            await _kill(running, SIGTERM)
            running = await _ended(running, grace)
        await _kill(running, SIGKILL)
        if left := await _ended(running, END_TIMEOUT):
            names = ", ".join(each.id for each in left)
            raise DeadlineExceeded(f"sandbox {sandbox.id}: {names} did not end within {END_TIMEOUT:g} s of SIGKILL")
        if not sandbox.exited.is_set:
            sandbox.exited_at = time.time_ns()
            sandbox.exited.set()

    def _found(self, id: str) -> Sandbox:
        if self.sandbox is None or self.sandbox.id != id:
            raise NotFound(f"sandbox {id[:76]} does not exist in this shim")
        return self.sandbox


async def _kill(containers: Sequence[Container], number: int) -> None:
    """Send a signal to each container's init, and SIGKILL to all of it."""
    for container in containers:
        try:
            await container.kill(container.init, number, all=number == SIGKILL)
        except NotFound:
            continue  # it has just ended


async def _ended(containers: Sequence[Container], timeout: float) -> list[Container]:
    """Wait for containers to end; return those that do not within ``timeout`` seconds in all."""
    deadline = time.monotonic() + timeout
    for container in containers:
        try:
            await container.init.exited.wait(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            continue
    return [each for each in containers if not each.init.exited.is_set]
