"""Contract: monitors, which watch containers while the daemon runs and act on their own."""

from __future__ import annotations

from windlass.plugin import PluginType

CONTAINER_MONITOR: PluginType[object] = PluginType("io.containerd.monitor.container.v1")
"""Acts on containers; nobody calls it, and clients look up its capabilities."""
