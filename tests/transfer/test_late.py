"""What moves images is made with the first transfer, and made anew after a change of its configuration."""

from __future__ import annotations

import asyncio
from typing import cast

from windlass.contracts.transfer import Destination, Report, Source
from windlass_transfer.late import LateTransfer
from windlass_transfer.local import LocalTransfer


class Local:
    """A transferrer that takes as long as a test wants."""

    def __init__(self, log: list[str], number: int) -> None:
        self._log = log
        self._number = number
        self.end = asyncio.Event()

    async def transfer(
        self, namespace: str, source: Source, destination: Destination, report: Report, lease: str = ""
    ) -> None:
        self._log.append(f"{self._number} begins")
        await self.end.wait()
        self._log.append(f"{self._number} ends")

    async def close(self) -> None:
        self._log.append(f"{self._number} is closed")


async def test_a_transfer_under_way_ends_as_it_began_and_the_next_is_made_anew() -> None:
    """A reload neither breaks a pull nor leaves its threads and connections behind."""
    log: list[str] = []
    made: list[Local] = []

    def make() -> LocalTransfer:
        made.append(Local(log, len(made)))
        return cast(LocalTransfer, made[-1])  # it has the methods that are called here

    late = LateTransfer(make)

    def begin() -> asyncio.Task[None]:
        # the local one looks at none of these
        return asyncio.create_task(late.transfer("n", cast(Source, None), cast(Destination, None), cast(Report, None)))

    async def until(number: int) -> None:
        while len(log) < number:
            await asyncio.sleep(0.001)

    first = begin()
    await until(1)
    await late.renew()
    second = begin()
    await until(2)
    assert log == ["0 begins", "1 begins"]

    made[0].end.set()
    await first
    assert log[2:] == ["0 ends", "0 is closed"]

    made[1].end.set()
    await second
    assert log[4:] == ["1 ends"]
    await late.renew()
    await late.close()
    assert log[5:] == ["1 is closed"]
