"""How busy processors are: while somebody asks for usage, the processor time of all groups is sampled every second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from windlass.records import dataclass
from windlass_cri.stats.cgroups import Group, processor_time

logger = logging.getLogger(__name__)

SHORTEST = 100_000_000
"""Nanoseconds between two samples whose difference says how busy a processor is."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Processor time at a time, both in nanoseconds, and how busy it was before."""

    at: int
    used: int
    rate: int | None = None

    def next(self, at: int, used: int) -> Sample:
        """Return the sample after this one; too soon after it, or when the counter began anew, what was known."""
        if at - self.at < SHORTEST:
            return self
        rate = (used - self.used) * 1_000_000_000 // (at - self.at)
        return Sample(at, used, rate if used >= self.used else None)


class Sampler:
    """Samples in the background from the first question until none has come for a while; used on the loop."""

    def __init__(self, groups: Callable[[], Awaitable[Mapping[str, Group]]], period: float, patience: float) -> None:
        """Sample ``groups`` each ``period`` seconds, until ``patience`` seconds after the last question."""
        self._groups = groups
        self._period = period
        self._patience = patience
        self._samples: dict[str, Sample] = {}
        self._asked = 0.0
        self._running: asyncio.Task[None] | None = None

    def rate(self, id: str) -> int | None:
        """Return how many nanoseconds a second a group has lately had; None when that is not known yet."""
        sample = self._samples.get(id)
        return sample.rate if sample else None

    def ask(self) -> None:
        """Note that somebody wants to know."""
        self._asked = time.monotonic()
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Sample no longer."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})

    @property
    def running(self) -> bool:
        """Whether samples are being taken."""
        return self._running is not None and not self._running.done()

    async def _run(self) -> None:
        while time.monotonic() - self._asked < self._patience:
            await self.sample()
            await asyncio.sleep(self._period)
        self._samples.clear()  # what is old says nothing of now

    async def sample(self) -> None:
        """Take one sample of each group; those that are gone are forgotten."""
        found = await asyncio.to_thread(_taken, await self._groups())
        old = self._samples
        self._samples = {id: old[id].next(*now) if id in old else Sample(*now) for id, now in found.items()}


def _taken(groups: Mapping[str, Group]) -> dict[str, tuple[int, int]]:
    """Return when each group had how much processor time."""
    found = {}
    for id, group in groups.items():
        used = processor_time(group)
        if used is not None:
            found[id] = (time.monotonic_ns(), used)
    return found
