"""The transferrer that is made with the first transfer is made once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import cast

import pytest

from windlass.contracts.transfer import Destination, Report, Source
from windlass_transfer.late import LateTransfer
from windlass_transfer.local import LocalTransfer


class Made:
    """A transferrer of which a test counts what it is asked for."""

    def __init__(self) -> None:
        self.transfers = 0
        self.closed = False

    async def transfer(self, *_: object) -> None:
        self.transfers += 1

    async def close(self) -> None:
        self.closed = True


class Factory:
    """Makes transferrers, each when it is let go on."""

    def __init__(self) -> None:
        self.made: list[Made] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> LocalTransfer:
        self.begun.set()
        self.go_on.wait(10)
        self.made.append(Made())
        return cast(LocalTransfer, self.made[-1])


@pytest.fixture
def factory() -> Iterator[Factory]:
    factory = Factory()
    yield factory
    factory.go_on.set()


async def transfer(late: LateTransfer) -> None:
    await late.transfer("default", cast(Source, None), cast(Destination, None), cast(Report, None))


async def test_a_first_transfer_that_is_cancelled_leaves_the_transferrer_to_the_next(factory: Factory) -> None:
    """Else its threads and connections would belong to nothing that closes them."""
    late = LateTransfer(factory)
    first = asyncio.create_task(transfer(late))
    await asyncio.to_thread(factory.begun.wait, 10)
    first.cancel()
    await asyncio.sleep(0)
    factory.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    await transfer(late)
    await late.close()
    assert [(made.transfers, made.closed) for made in factory.made] == [(1, True)]


async def test_a_daemon_that_stops_meanwhile_closes_what_is_being_made(factory: Factory) -> None:
    """The first transfer may be importing when the plugins are stopped."""
    late = LateTransfer(factory)
    first = asyncio.create_task(transfer(late))
    await asyncio.to_thread(factory.begun.wait, 10)
    closing = asyncio.create_task(late.close())
    await asyncio.sleep(0)
    factory.go_on.set()
    await asyncio.gather(first, closing)
    assert [made.closed for made in factory.made] == [True]
