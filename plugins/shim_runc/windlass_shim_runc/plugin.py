"""Registers the runc shim."""

from __future__ import annotations

import sys

from windlass.plugin import InitContext, Plugin, SkipPlugin
from windlass.shims import FORKED_SHIM, ForkedShim

RUNTIME = "io.containerd.runc.v2"


def init(context: InitContext) -> ForkedShim:
    """Say which runtimes the shim serves; its code is imported by the zygote, and by who asks for a description."""
    if sys.platform != "linux":
        raise SkipPlugin(f"OCI runtimes need Linux, this is {sys.platform}; use a remote shim")
    return ForkedShim(
        runtimes=(RUNTIME,),
        entry="windlass_shim_runc.entry:serve",
        preload=("windlass_shim_runc.entry",),
        cleanup="windlass_shim_runc.leftovers:clean",
        describe=_describe,
        program="containerd-shim-windlass-v1",
    )


def _describe(options: bytes) -> bytes:
    from windlass_shim_runc.info import describe

    return describe(options, RUNTIME)


PLUGIN = Plugin(FORKED_SHIM, id="runc", init=init)
