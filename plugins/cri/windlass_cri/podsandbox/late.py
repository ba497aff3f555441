"""The controller of pause containers until it is needed: what it imports is a tenth of a start, and for pods alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from windlass.contracts.sandboxes import SandboxController, SandboxOptions, SandboxStatus, StartedSandbox
from windlass.contracts.tasks import Exit
from windlass.gate import offloaded
from windlass.typing import override

if TYPE_CHECKING:
    from windlass.contracts.sandboxes import Sandbox
    from windlass.contracts.tasks import Metric
    from windlass.contracts.values import Platform
    from windlass_cri.podsandbox.controller import PauseContainers


class LatePauseContainers(SandboxController):
    """Makes the controller in a thread when the first call comes."""

    def __init__(self, make: Callable[[], PauseContainers]) -> None:
        """Have ``make`` import it, once."""
        self._make = make
        self._turn = asyncio.Lock()
        self._made: PauseContainers | None = None

    async def _ready(self) -> PauseContainers:
        if self._made is None:
            async with self._turn:
                if self._made is None:
                    self._made = await offloaded(self._make, deadline=None)()
        return self._made

    @override
    async def create(self, namespace: str, sandbox: Sandbox, options: SandboxOptions) -> None:
        await (await self._ready()).create(namespace, sandbox, options)

    @override
    async def start(self, namespace: str, id: str) -> StartedSandbox:
        return await (await self._ready()).start(namespace, id)

    @override
    async def platform(self, namespace: str, id: str) -> Platform:
        return await (await self._ready()).platform(namespace, id)

    @override
    async def stop(self, namespace: str, id: str, timeout: float) -> None:
        await (await self._ready()).stop(namespace, id, timeout)

    @override
    async def wait(self, namespace: str, id: str) -> Exit:
        return await (await self._ready()).wait(namespace, id)

    @override
    async def status(self, namespace: str, id: str, verbose: bool = False) -> SandboxStatus:
        return await (await self._ready()).status(namespace, id, verbose)

    @override
    async def shutdown(self, namespace: str, id: str) -> None:
        await (await self._ready()).shutdown(namespace, id)

    @override
    async def metrics(self, namespace: str, id: str) -> Metric:
        return await (await self._ready()).metrics(namespace, id)

    @override
    async def update(self, namespace: str, sandbox: Sandbox, fieldpaths: Sequence[str] = ()) -> None:
        await (await self._ready()).update(namespace, sandbox, fieldpaths)

    async def close(self) -> None:
        """Close what was made."""
        if self._made is not None:
            await self._made.close()
