"""Registers the zygote."""

from __future__ import annotations

import sys

from windlass.contracts.zygote import ZYGOTE, Zygote
from windlass.plugin import InitContext, Plugin, SkipPlugin
from windlass.records import dataclass


@dataclass(frozen=True)
class Config:
    """Configuration of the plugin ``io.windlass.zygote.v1.fork``."""

    executable: str = ""
    """The Python that the zygote runs; empty for the daemon's own. It must be the same version."""


def init(context: InitContext) -> Zygote:
    """Make the zygotes' owner; each imports its modules while the daemon goes on booting."""
    if sys.platform != "linux":
        raise SkipPlugin(f"pidfds and SOCK_SEQPACKET do not exist on {sys.platform}; run the daemon on Linux")
    from windlass_zygote.per_package import ZygotePerPackage

    zygote = ZygotePerPackage(context.config(Config).executable or sys.executable)
    context.on_stop(zygote.close)
    return zygote


PLUGIN = Plugin(ZYGOTE, id="fork", init=init, config=Config)
