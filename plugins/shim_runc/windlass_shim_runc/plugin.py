"""Registers the runc shim, and what looks at runc itself."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from windlass.contracts.checks import CHECK, Checked
from windlass.contracts.metadata import METADATA
from windlass.contracts.properties import STATE
from windlass.contracts.shims import FORKED_SHIM, ForkedShim
from windlass.errors import InvalidArgument
from windlass.plugin import InitContext, Plugin, SkipPlugin
from windlass.records import dataclass

RUNC, OWN_NAME = "runc", "windlass-oci"
ENTRIES = {RUNC: "windlass_shim_runc.entry:serve", OWN_NAME: "windlass_shim_runc.entry:serve_own"}
RUNTIME = "io.containerd.runc.v2"
OWN_RUNTIME = "io.windlass.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Configuration of ``io.windlass.shim.v1.runc``."""

    #: The OCI runtime of tasks whose options name none: "runc", or "windlass-oci" for our own, in the shim's process.
    oci_runtime: str = RUNC


def init(context: InitContext) -> ForkedShim:
    """Say that the shim serves runc's name, by runc or by what the configuration says."""
    program = context.config(Config).oci_runtime
    if program not in ENTRIES:
        raise InvalidArgument(f'oci_runtime is "{program}"; use {" or ".join(ENTRIES)}, or the option BinaryName')
    return shim_of(RUNTIME, program)


def shim_of(runtime: str, program: str) -> ForkedShim:
    """Say which runtime a shim serves; its code is imported by the zygote, and by who asks for a description."""
    if sys.platform != "linux":
        raise SkipPlugin(f"OCI runtimes need Linux, this is {sys.platform}; use a remote shim")
    return ForkedShim(
        runtimes=(runtime,),
        entry=ENTRIES[program],
        preload=("windlass_shim_runc.entry", "windlass_shim_runc.leftovers"),
        cleanup="windlass_shim_runc.leftovers:clean",
        describe=_describe,
        program="containerd-shim-windlass-v1",
    )


def init_own(context: InitContext) -> ForkedShim:
    """Say that the same shim serves our own OCI runtime, which is a library in it."""
    return shim_of(OWN_RUNTIME, OWN_NAME)


def init_check(context: InitContext) -> Checked:
    """Look at runc's version once the daemon runs, which does not wait for that; at what it keeps when asked."""
    if sys.platform != "linux":
        raise SkipPlugin(f"OCI runtimes need Linux, this is {sys.platform}")
    # Without it fsck says that, and not what follows from it.
    context.single(METADATA)
    from windlass_shim_runc.check import RuncCheck, warn_of_weaknesses

    async def look() -> None:
        threading.Thread(target=warn_of_weaknesses, name="runc-version", daemon=True).start()

    context.on_start(look)
    return RuncCheck(Path(context.properties[STATE]))


def _describe(options: bytes) -> bytes:
    from windlass_shim_runc.info import describe

    return describe(options, RUNTIME)


PLUGIN = Plugin(FORKED_SHIM, id="runc", init=init, config=Config)
OWN = Plugin(FORKED_SHIM, id="windlass", init=init_own)
RUNC_CHECK = Plugin(CHECK, id="runc", init=init_check, requires=(METADATA,))
