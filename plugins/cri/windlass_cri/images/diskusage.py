"""How much the snapshots of a snapshotter take, measured now and then (docs/containerd 5.10)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from windlass.contracts.snapshots import Snapshotter, Usage
from windlass.errors import NotFound
from windlass.gate import offloaded
from windlass.records import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """What all snapshots take; ``at`` is nanoseconds since the epoch."""

    at: int
    size: int
    inodes: int
    snapshots: Mapping[str, Usage]
    """Of each snapshot, by its name."""


class DiskUsage:
    """Measures one snapshotter's snapshots in a namespace."""

    def __init__(self, snapshotter: Snapshotter, root: str, period: float) -> None:
        """Have measured nothing yet; ``root`` is the snapshotter's directory, a measurement is good for ``period``."""
        self._period = period
        self.root = root
        self._snapshotter = snapshotter
        self._measured: Measured | None = None
        self._turn = asyncio.Lock()
        self._until = 0.0

    async def total(self) -> Measured:
        """Return what was measured lately, or measure."""
        async with self._turn:
            if self._measured is None or time.monotonic() > self._until:
                self._measured = await offloaded(_measure, deadline=None)(self._snapshotter)
                self._until = time.monotonic() + self._period
            return self._measured


def _measure(snapshotter: Snapshotter) -> Measured:
    found = {info.name: _usage(snapshotter, info.name) for info in snapshotter.walk()}
    size, inodes = sum(each.size for each in found.values()), sum(each.inodes for each in found.values())
    return Measured(time.time_ns(), size, inodes, found)


def _usage(snapshotter: Snapshotter, name: str) -> Usage:
    try:
        return snapshotter.usage(name)
    except NotFound:  # it was removed meanwhile
        return Usage(0, 0)
