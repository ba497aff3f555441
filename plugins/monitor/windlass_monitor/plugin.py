"""Registers the monitor of tasks' cgroups."""

from __future__ import annotations

import sys
from typing import Any

from windlass.contracts.metadata import METADATA
from windlass.contracts.metrics import MetricSource
from windlass.contracts.monitors import TASK_MONITOR
from windlass.contracts.tasks import RUNTIME
from windlass.plugin import InitContext, Plugin, SkipPlugin
from windlass.records import dataclass

OLD_URI = "io.containerd.monitor.v1.cgroups"
NEW_URI = "io.containerd.monitor.task.v1.cgroups"


@dataclass(frozen=True)
class Config:
    """Configuration of ``io.containerd.monitor.task.v1.cgroups``."""

    #: Measure nothing for the metrics listener.
    no_prometheus: bool = False


def init(context: InitContext) -> MetricSource:
    """Measure when asked."""
    if sys.platform != "linux":
        raise SkipPlugin(f"cgroups need Linux, this is {sys.platform}")
    from windlass_monitor.cgroups import CgroupMetrics

    wanted = not context.config(Config).no_prometheus
    return CgroupMetrics(context.single(METADATA), context.single(RUNTIME), wanted)


# Any: a TOML table as parsed.
def migrate(version: int, plugins: dict[str, Any]) -> None:
    """Steps 2 to 3 and 3 to 4: the monitor has a type of its own (docs/containerd 1.3).

    Files of version 3 with the old name work in containerd, whose migration of this block asks for a version before 4.
    """
    if version in (2, 3) and OLD_URI in plugins:
        old = plugins.pop(OLD_URI)
        plugins.setdefault(NEW_URI, old)


PLUGIN = Plugin(TASK_MONITOR, id="cgroups", init=init, requires=(METADATA, RUNTIME), config=Config, migrate=migrate)
