"""Contract: the scheduler of garbage collections."""

from __future__ import annotations

from typing import Protocol

from windlass.contracts.metadata import Collected
from windlass.plugin import PluginType, contract


@contract
class Collector(Protocol):
    """Runs collections when enough has changed, or when somebody waits for one."""

    async def collect(self) -> Collected:
        """Run a collection that starts after this call and return its result."""
        ...


GC: PluginType[Collector] = PluginType("io.containerd.gc.v1", Collector)
