"""The controller of pause containers before anybody asks for one: what it imports would be a tenth of a start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from windlass.contracts.sandboxes import Sandbox, SandboxController, SandboxOptions, SandboxStatus, StartedSandbox
from windlass.contracts.tasks import Exit, Metric
from windlass.contracts.values import Platform
from windlass.gate import offloaded
from windlass.typing import override

if TYPE_CHECKING:
    from windlass_cri.podsandbox.controller import PauseContainers


class LatePauseContainers(SandboxController):
    """Makes `PauseContainers` for the first call, whose error is that of an import that fails; the next tries again."""

    def __init__(self, make: Callable[[], PauseContainers]) -> None:
        """Have ``make`` import and make the controller, in a thread."""
        self._make = make
        self._made: PauseContainers | None = None

    async def _controller(self) -> PauseContainers:
        made = self._made or await offloaded(self._make, deadline=None)()
        self._made = self._made or made  # another call may have been first
        return self._made

    @override
    async def create(self, namespace: str, sandbox: Sandbox, options: SandboxOptions) -> None:
        await (await self._controller()).create(namespace, sandbox, options)

    @override
    async def start(self, namespace: str, id: str) -> StartedSandbox:
        return await (await self._controller()).start(namespace, id)

    @override
    async def platform(self, namespace: str, id: str) -> Platform:
        return await (await self._controller()).platform(namespace, id)

    @override
    async def stop(self, namespace: str, id: str, timeout: float) -> None:
        await (await self._controller()).stop(namespace, id, timeout)

    @override
    async def wait(self, namespace: str, id: str) -> Exit:
        return await (await self._controller()).wait(namespace, id)

    @override
    async def status(self, namespace: str, id: str, verbose: bool = False) -> SandboxStatus:
        return await (await self._controller()).status(namespace, id, verbose)

    @override
    async def shutdown(self, namespace: str, id: str) -> None:
        await (await self._controller()).shutdown(namespace, id)

    @override
    async def metrics(self, namespace: str, id: str) -> Metric:
        return await (await self._controller()).metrics(namespace, id)

    @override
    async def update(self, namespace: str, sandbox: Sandbox, fieldpaths: Sequence[str] = ()) -> None:
        await (await self._controller()).update(namespace, sandbox, fieldpaths)

    async def close(self) -> None:
        """Stop what was made."""
        if self._made is not None:
            await self._made.close()
