"""The transferrer until it is needed: what reads images and talks to registries is imported with the first transfer.

That is a seventh of what the daemon imports, and many daemons never transfer an image.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from windlass.contracts.transfer import Destination, Report, Source, Transferrer
from windlass.gate import offloaded
from windlass.typing import override
from windlass_local.waiting import settled

if TYPE_CHECKING:
    from windlass_transfer.local import LocalTransfer


class LateTransfer(Transferrer):
    """Makes a transferrer in a thread when the first transfer comes."""

    def __init__(self, make: Callable[[], LocalTransfer]) -> None:
        """Have ``make`` import it, once."""
        self._make = make
        self._turn = asyncio.Lock()
        self._made: LocalTransfer | None = None
        self._busy: Counter[LocalTransfer] = Counter()
        """How many transfers each does, also one that others have replaced."""

    @override
    async def transfer(
        self, namespace: str, source: Source, destination: Destination, report: Report, lease: str = ""
    ) -> None:
        made = await settled(self._make_once())
        while made is not self._made:  # renewed in the meantime
            made = await settled(self._make_once())
        self._busy[made] += 1
        try:
            await made.transfer(namespace, source, destination, report, lease)
        finally:
            self._busy[made] -= 1
            await self._close_unused(made)

    async def _make_once(self) -> LocalTransfer:
        # `settled`, because what is made for a cancelled caller is for the next: it has threads and connections.
        async with self._turn:
            if self._made is None:
                self._made = await offloaded(self._make, deadline=None)()
            return self._made

    async def renew(self) -> None:
        """Have the next transfer made anew; those under way end as they have begun."""
        async with self._turn:
            made, self._made = self._made, None
        if made is not None:
            await self._close_unused(made)

    async def _close_unused(self, made: LocalTransfer) -> None:
        if made is not self._made and not self._busy[made]:
            del self._busy[made]
            await made.close()

    async def close(self) -> None:
        """Close what was made, or is being made."""
        async with self._turn:
            if self._made is not None:
                await self._made.close()
