"""Puts the task manager together from its parts."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from windlass.contracts.activations import MountManager
from windlass.contracts.events import Exchange
from windlass.contracts.shims import ForkedShim
from windlass.contracts.zygote import Zygote
from windlass.plugin import InitContext
from windlass_runtime_v2.bundles import Bundles
from windlass_runtime_v2.foreign import ForeignShims
from windlass_runtime_v2.forked import ForkedShims
from windlass_runtime_v2.joining import SandboxHosts
from windlass_runtime_v2.launch import Launcher
from windlass_runtime_v2.lifecycle import Lifecycle
from windlass_runtime_v2.recovery import Recovery
from windlass_runtime_v2.rootfs import Rootfs
from windlass_runtime_v2.sandbox_controller import ShimSandboxes
from windlass_runtime_v2.sandbox_recovery import SandboxRecovery
from windlass_runtime_v2.sandboxes import Sandboxes
from windlass_runtime_v2.settings import Deadlines, ShimSettings
from windlass_runtime_v2.task import Jobs
from windlass_runtime_v2.tasks import ShimTasks

STOP_TIMEOUT = 5.0


def build(
    context: InitContext,
    settings: ShimSettings,
    deadlines: Deadlines,
    exchange: Exchange,
    zygote: Zygote,
    shims: Mapping[str, ForkedShim],
    mounts: MountManager | None,
) -> ShimTasks:
    """Return the task manager; ``context`` starts and stops it."""
    settings.socket_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    for shim in shims.values():
        zygote.preload(shim.preload)
    bundles = Bundles(context.state, context.root)
    forked = ForkedShims(zygote, shims, settings, deadlines)
    launcher = Launcher("task", bundles, forked, ForeignShims(settings, deadlines), deadlines)
    lifecycle = Lifecycle(launcher, exchange, deadlines, Jobs(), SandboxHosts.next_to(context.state), Rootfs(mounts))
    recovery = Recovery(lifecycle, settings.socket_dir, context.register_readiness())
    context.on_start(recovery.start)
    context.on_stop(functools.partial(lifecycle.stop, STOP_TIMEOUT))
    return ShimTasks(lifecycle, recovery, context.hooks)


def build_sandboxes(
    context: InitContext,
    settings: ShimSettings,
    deadlines: Deadlines,
    zygote: Zygote,
    shims: Mapping[str, ForkedShim],
) -> ShimSandboxes:
    """Return the sandbox controller; ``context`` starts and stops it."""
    settings.socket_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    forked = ForkedShims(zygote, shims, settings, deadlines)
    bundles = Bundles(context.state, context.root)
    launcher = Launcher("sandbox", bundles, forked, ForeignShims(settings, deadlines), deadlines)
    sandboxes = Sandboxes(launcher, deadlines, Jobs())
    recovery = SandboxRecovery(sandboxes, context.register_readiness())
    context.on_start(recovery.start)
    context.on_stop(functools.partial(sandboxes.stop, STOP_TIMEOUT))
    return ShimSandboxes(sandboxes, recovery)
