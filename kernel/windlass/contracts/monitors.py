"""Contract: monitors, which watch containers and tasks while the daemon runs, and act or measure on their own."""

from __future__ import annotations

from windlass.contracts.metrics import MetricSource
from windlass.plugin import PluginType

CONTAINER_MONITOR: PluginType[object] = PluginType("io.containerd.monitor.container.v1")
"""Acts on containers. No plugin calls it; clients look up its capabilities."""

TASK_MONITOR: PluginType[MetricSource] = PluginType("io.containerd.monitor.task.v1", MetricSource)
"""Measures tasks."""
