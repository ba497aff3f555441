"""The transferrer until it is needed: what reads images and talks to registries is imported with the first transfer.

That is a seventh of what the daemon imports, and many a daemon never transfers an image.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from windlass.contracts.transfer import Destination, Report, Source, Transferrer
from windlass.gate import offloaded

if TYPE_CHECKING:
    from windlass_transfer.local import LocalTransfer


class LateTransfer(Transferrer):
    """Makes a transferrer in a thread when the first transfer comes."""

    def __init__(self, make: Callable[[], LocalTransfer]) -> None:
        """Have ``make`` import it, once."""
        self._make = make
        self._turn = asyncio.Lock()
        self._made: LocalTransfer | None = None

    async def transfer(
        self, namespace: str, source: Source, destination: Destination, report: Report, lease: str = ""
    ) -> None:
        """See the contract."""
        async with self._turn:
            if self._made is None:
                self._made = await offloaded(self._make, deadline=None)()
        await self._made.transfer(namespace, source, destination, report, lease)

    async def close(self) -> None:
        """Close what was made."""
        if self._made is not None:
            await self._made.close()
