"""A sandbox without a process of its own, which is there as long as its shim is.

It keeps the shim alive while it has no containers, and ends them when it ends.
"""

from __future__ import annotations

import time

from windlass.errors import DeadlineExceeded, NotFound
from windlass_shim_runc import records
from windlass_shim_runc.loop import Flag
from windlass_shim_runc.signals import SIGKILL, SIGTERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from windlass_shim_runc.container import Container
    from windlass_shim_runc.loop import Loop

END_TIMEOUT = 10.0
"""How long killed containers may take to end."""


class Sandbox:
    """What the shim knows of its sandbox; times are nanoseconds since the epoch."""

    __slots__ = ("created_at", "exited", "exited_at", "id", "started")

    def __init__(self, loop: Loop, id: str, created_at: int) -> None:
        self.id = id
        self.created_at = created_at
        self.started = False
        self.exited_at = 0
        self.exited = Flag(loop)

    @property
    def is_ready(self) -> bool:
        """Whether containers may be created in it."""
        return self.started and not self.exited_at

    def to_record(self) -> records.SandboxRecord:
        """Return what `take_over` makes the same sandbox of."""
        return records.SandboxRecord(
            id=self.id, created_at=self.created_at, started=self.started, exited_at=self.exited_at
        )

    @classmethod
    def take_over(cls, loop: Loop, record: records.SandboxRecord) -> Sandbox:
        """Return the sandbox of a record."""
        sandbox = cls(loop, record.id, record.created_at)
        sandbox.started, sandbox.exited_at = record.started, record.exited_at
        if record.exited_at:
            sandbox.exited.set()
        return sandbox

    async def stop(self, containers: Sequence[Container], grace: float) -> None:
        """End its containers, by SIGTERM if they have ``grace`` seconds for that; they stay until they are deleted."""
        running = [each for each in containers if not each.init.exited.is_set]
        if grace:
            await _kill(running, SIGTERM)
            running = await _ended(running, grace)
        await _kill(running, SIGKILL)
        if left := await _ended(running, END_TIMEOUT):
            names = ", ".join(each.id for each in left)
            raise DeadlineExceeded(f"sandbox {self.id}: {names} did not end within {END_TIMEOUT:g} s of SIGKILL")
        if not self.exited.is_set:
            self.exited_at = time.time_ns()
            self.exited.set()


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
