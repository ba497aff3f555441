"""Registers the restart monitor."""

from __future__ import annotations

from windlass.config import durations
from windlass.contracts.metadata import METADATA
from windlass.contracts.monitors import CONTAINER_MONITOR
from windlass.contracts.tasks import RUNTIME
from windlass.errors import InvalidArgument
from windlass.plugin import InitContext, Plugin
from windlass.records import dataclass

CAPABILITIES = ("no", "always", "on-failure", "unless-stopped")
OLD_URI = "io.containerd.internal.v1.restart"
NEW_URI = "io.containerd.monitor.container.v1.restart"


@dataclass(frozen=True)
class Config:
    """Configuration of ``io.containerd.monitor.container.v1.restart``."""

    #: How often containers are compared with what their labels ask for.
    interval: str = "10s"


def init(context: InitContext) -> object:
    """Begin to watch once the daemon has started."""
    from windlass_restart.monitor import Monitor

    config = context.config(Config)
    try:
        interval = durations.seconds(config.interval)
    except ValueError as error:
        raise InvalidArgument(f"interval: {error}") from None
    if interval <= 0:
        raise InvalidArgument(f'interval is "{config.interval}"; it must be longer than nothing')
    context.meta.capabilities.extend(CAPABILITIES)
    monitor = Monitor(context.single(METADATA), context.single(RUNTIME), interval)
    context.on_start(monitor.start)
    context.on_stop(monitor.stop)
    return monitor


def migrate(version: int, plugins: dict[str, object]) -> None:
    """Steps 2 to 3 and 3 to 4: the monitor has a type of its own (docs/containerd 1.3).

    Files of version 3 with the old name work in containerd, whose migration of this block asks for a version before 4.
    """
    if version in (2, 3) and OLD_URI in plugins:
        old = plugins.pop(OLD_URI)
        plugins.setdefault(NEW_URI, old)


PLUGIN = Plugin(
    CONTAINER_MONITOR, id="restart", init=init, requires=(METADATA, RUNTIME), config=Config, migrate=migrate
)
