"""Registers NRI: its configuration block, and the hook plugin that speaks for its plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windlass.contracts.pods import PodHooks
from windlass.contracts.services import GRPC
from windlass.errors import FailedPrecondition, NotFound
from windlass.plugin import HOOK, InitContext, Plugin, PluginType, SkipPlugin
from windlass_nri_plugins.config import Config

if TYPE_CHECKING:
    from windlass_nri_plugins.server import NriServer

NRI: PluginType[NriServer] = PluginType("io.containerd.nri.v1")


def init(context: InitContext) -> NriServer:
    """Get ready to listen."""
    from windlass_nri_plugins.server import NriServer

    config = context.config(Config)
    if config.disable:
        raise SkipPlugin("disable = true in its configuration")
    server = NriServer(config, context.state, context.loop)
    # After those of the services: plugins see the pods that CRI has found.
    context.on_start(server.start)
    context.on_stop(server.stop)
    return server


def init_hooks(context: InitContext) -> object:
    """Take part in the steps for the plugins of NRI."""
    from windlass_nri_plugins.participant import NriHooks

    try:
        return NriHooks(context.by_id(NRI, "nri"))
    except NotFound:
        raise SkipPlugin("io.containerd.nri.v1.nri is disabled") from None
    except FailedPrecondition as error:
        # Without NRI pods run; with an NRI that failed none must run unseen by its plugins.
        if isinstance(error.__cause__, SkipPlugin):
            raise SkipPlugin(str(error.__cause__)) from None
        raise


PLUGIN = Plugin(NRI, id="nri", init=init, config=Config, requires=(GRPC,))
HOOK_PLUGIN = Plugin(HOOK, id="nri", init=init_hooks, requires=(NRI,), steps=(PodHooks,))
