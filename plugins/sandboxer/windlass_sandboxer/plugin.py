"""Registers the sandbox controller `windlass`."""

from __future__ import annotations

import os
import sys

from windlass.contracts.sandboxes import SANDBOX_CONTROLLER, SandboxController
from windlass.contracts.zygote import ZYGOTE
from windlass.plugin import InitContext, Plugin, SkipPlugin


def init(context: InitContext) -> SandboxController:
    """Find the sandboxes of an earlier daemon."""
    if sys.platform != "linux":
        raise SkipPlugin(f"namespaces are of Linux, this is {sys.platform}; run the daemon on Linux")
    if os.geteuid() != 0:
        raise SkipPlugin("only root can make these namespaces; run the daemon as root")
    from windlass_sandboxer import owned, reaper
    from windlass_sandboxer.controller import PinnedSandboxes

    zygote = context.single(ZYGOTE)
    zygote.preload([reaper.MODULE, owned.MODULE])
    return PinnedSandboxes(context.state, zygote)


PLUGIN = Plugin(SANDBOX_CONTROLLER, id="windlass", init=init, requires=(ZYGOTE,))
