"""Registers the task manager, and the settings of its shims under the name that containerd has for them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.contracts.activations import MOUNT_MANAGER
from windlass.contracts.checks import CHECK, Checked
from windlass.contracts.events import EXCHANGE
from windlass.contracts.metadata import METADATA
from windlass.contracts.properties import GRPC_ADDRESS, LOG_LEVEL, ROOT, STATE, TTRPC_ADDRESS
from windlass.contracts.sandboxes import SANDBOX_CONTROLLER, SandboxController
from windlass.contracts.shims import FORKED_SHIM
from windlass.contracts.tasks import RUNTIME, Tasks
from windlass.contracts.values import host_architecture
from windlass.contracts.zygote import ZYGOTE
from windlass.errors import InvalidArgument
from windlass.plugin import InitContext, Plugin, PluginType, SkipPlugin
from windlass.records import dataclass

if TYPE_CHECKING:
    from windlass_runtime_v2.settings import Deadlines, ShimSettings

REQUEST_TIMEOUT = 60.0
LOG_URI_SCHEMES = "fifo,binary,binary-v2,file"


@dataclass(frozen=True)
class ShimConfig:
    """Configuration of the plugin ``io.containerd.shim.v1.manager``."""

    env: tuple[str, ...] = ()
    """``KEY=value`` settings that every foreign shim gets in addition to the daemon's own environment."""
    socket_dir: str = ""
    """Directory of the shims' sockets, absolute; empty for ``s`` below the daemon's state directory."""


@dataclass(frozen=True)
class Config:
    """Configuration of the plugin ``io.containerd.runtime.v2.task``."""

    platforms: tuple[str, ...] = ()
    """Platforms such as ``linux/amd64`` that tasks can be run for; empty for the machine's own."""
    request_timeout: float = REQUEST_TIMEOUT
    """Seconds that a shim may take for one request, such as a create or a delete; a wait has no limit."""


SHIM: PluginType[ShimConfig] = PluginType("io.containerd.shim.v1")


def init_shim(context: InitContext) -> ShimConfig:
    """Check the settings."""
    config = context.config(ShimConfig)
    if config.socket_dir and not config.socket_dir.startswith("/"):
        raise InvalidArgument(f"socket_dir {config.socket_dir!r} is not absolute")
    return config


def init(context: InitContext) -> Tasks:
    """Get ready to start shims; the tasks of an earlier daemon are looked for once all plugins are there."""
    if sys.platform != "linux":
        raise SkipPlugin(f"shims of this kind need Linux, this is {sys.platform}")
    from windlass_runtime_v2.build import build

    config = context.config(Config)
    for name in config.platforms or (f"linux/{host_architecture()}",):
        system, _, rest = name.partition("/")
        architecture, _, variant = rest.partition("/")
        context.meta.platforms.append((system, architecture, variant))
    context.meta.exports["log-uri-schemes"] = LOG_URI_SCHEMES
    settings, deadlines = _settings(context, config.request_timeout)
    return build(
        context,
        settings,
        deadlines,
        context.single(EXCHANGE),
        context.single(ZYGOTE),
        context.all(FORKED_SHIM),
        next(iter(context.all(MOUNT_MANAGER).values()), None),
    )


def init_sandboxes(context: InitContext) -> SandboxController:
    """Get ready to run sandboxes in shims; those of an earlier daemon are looked for once all plugins are there."""
    if sys.platform != "linux":
        raise SkipPlugin(f"shims of this kind need Linux, this is {sys.platform}")
    from windlass_runtime_v2.build import build_sandboxes

    settings, deadlines = _settings(context, REQUEST_TIMEOUT)
    return build_sandboxes(context, settings, deadlines, context.single(ZYGOTE), context.all(FORKED_SHIM))


def init_check(context: InitContext) -> Checked:
    """Find the bundles."""
    from windlass_runtime_v2.bundles import Bundles
    from windlass_runtime_v2.check import BundleCheck

    root, state = (path.parent / PLUGIN.uri for path in (context.root, context.state))
    return BundleCheck(Bundles(state, root), context.single(METADATA), Path(context.properties[ROOT]))


def _settings(context: InitContext, request_timeout: float) -> tuple[ShimSettings, Deadlines]:
    from windlass_runtime_v2.settings import Deadlines, ShimSettings

    shim = context.single(SHIM)
    settings = ShimSettings(
        socket_dir=Path(shim.socket_dir or f"{context.properties[STATE]}/s"),
        env=tuple(shim.env),
        grpc_address=context.properties[GRPC_ADDRESS],
        ttrpc_address=context.properties[TTRPC_ADDRESS],
        log_level=context.properties[LOG_LEVEL],
    )
    deadlines = Deadlines(
        load=context.timeout("io.containerd.timeout.shim.load"),
        cleanup=context.timeout("io.containerd.timeout.shim.cleanup"),
        shutdown=context.timeout("io.containerd.timeout.shim.shutdown"),
        state=context.timeout("io.containerd.timeout.task.state"),
        stats=context.timeout("io.containerd.timeout.metrics.shimstats"),
        request=request_timeout,
    )
    return settings, deadlines


PLUGIN = Plugin(
    RUNTIME, id="task", init=init, config=Config, requires=(SHIM, EXCHANGE, ZYGOTE, FORKED_SHIM, MOUNT_MANAGER)
)
SHIM_PLUGIN = Plugin(SHIM, id="manager", init=init_shim, config=ShimConfig)
SANDBOXES = Plugin(SANDBOX_CONTROLLER, id="shim", init=init_sandboxes, requires=(SHIM, ZYGOTE, FORKED_SHIM))
BUNDLE_CHECK = Plugin(CHECK, id="bundles", init=init_check, requires=(METADATA,))
