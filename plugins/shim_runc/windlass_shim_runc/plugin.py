"""Registers the runc shim."""

from __future__ import annotations

import sys

from windlass.plugin import InitContext, Plugin, SkipPlugin
from windlass.shims import FORKED_SHIM, ForkedShim


def init(context: InitContext) -> ForkedShim:
    """Say which runtimes the shim serves; its code is imported by the zygote only."""
    if sys.platform != "linux":
        raise SkipPlugin(f"OCI runtimes need Linux, this is {sys.platform}; use a remote shim")
    return ForkedShim(
        runtimes=("io.containerd.runc.v2",),
        entry="windlass_shim_runc.entry:serve",
        preload=("windlass_shim_runc.entry",),
        cleanup="windlass_shim_runc.leftovers:clean",
    )


PLUGIN = Plugin(FORKED_SHIM, id="runc", init=init)
