"""Puts a machine under strain, and takes account before and after."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from compat.accounts import Account, take_account
from compat.killer import Killer, see_standing
from compat.machines import Machine
from compat.strain import Strain, connected
from compat.workers import Worker

from windlass_client.client import Client

SETTLED_WITHIN = 30.0
"""Longest that what has been deleted may take to be gone, and a daemon's clients to be forgotten."""


async def put_under_strain(
    machine: Machine, image: str, *, workers: int, seconds: float, kills: int = 0, seed: int = 0
) -> Strain:
    """Let workers work for ``seconds``, or until ``kills`` are done, and take account before and after."""
    strain = Strain(machine, image)
    (machine.directory / "fifos").mkdir(exist_ok=True)
    async with connected(strain) as (client, _):
        # Whatever is made when it is first needed is there from now on.
        await Worker(strain, client, workers, random.Random(seed)).rehearse()
    before = await settled(machine)
    async with connected(strain) as (client, ready):
        spared = Worker(strain, client, workers, random.Random(seed))
        for _ in range(4 if kills else 1):
            await spared.stand()
        if kills:
            killing = asyncio.ensure_future(Killer(strain, client, ready, seed).run(kills))
            await asyncio.gather(killing, work(strain, client, workers, seed, killing.done))
        else:
            end = time.monotonic() + seconds
            await work(strain, client, workers, seed, lambda: time.monotonic() >= end)
        await see_standing(strain, client)
        await spared.fall()
        if kills:
            # What a lease keeps of a client that has been cut short is kept for a day.
            for lease in await client.leases.list():
                await client.leases.delete(lease.id)
    began = time.monotonic()
    strain.violations += await gone(machine, before)
    strain.settled = time.monotonic() - began
    return strain


async def work(strain: Strain, client: Client, workers: int, seed: int, until: Callable[[], bool]) -> None:
    """Let so many workers work until ``until()``."""
    each = (Worker(strain, client, number, random.Random(f"{seed}/{number}")) for number in range(workers))
    await asyncio.gather(*(worker.run(until) for worker in each))


async def settled(machine: Machine) -> Account:
    """Return an account that does not change any more."""
    await asyncio.to_thread(machine.collect_garbage)
    end, account = time.monotonic() + SETTLED_WITHIN, await asyncio.to_thread(take_account, machine)
    while time.monotonic() < end:
        await asyncio.sleep(0.5)
        last, account = account, await asyncio.to_thread(take_account, machine)
        if not account.more_than(last) and not last.more_than(account):
            break
    return account


async def gone(machine: Machine, before: Account) -> list[str]:
    """Return what there is more than ``before``, once that is nothing or the time is up."""
    end = time.monotonic() + SETTLED_WITHIN
    await asyncio.to_thread(machine.collect_garbage)
    while more := (await asyncio.to_thread(take_account, machine)).more_than(before):
        if time.monotonic() > end:
            break
        await asyncio.sleep(0.5)
    return more
