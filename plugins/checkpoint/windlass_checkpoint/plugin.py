"""Registers the keeper of checkpoints."""

from __future__ import annotations

import os
import sys

from windlass.contracts.checkpoints import CHECKPOINTS, Checkpoints
from windlass.contracts.diff import DIFFER
from windlass.contracts.metadata import METADATA
from windlass.contracts.tasks import RUNTIME
from windlass.plugin import InitContext, Plugin, SkipPlugin
from windlass.records import dataclass

STOP_TIMEOUT = 5.0


@dataclass(frozen=True)
class Config:
    """Configuration of the plugin ``io.windlass.checkpoint.v1.blobs``."""

    differ: str = "walking"
    """ID of the differ that packs and unpacks the directories that criu writes and reads."""


def init(context: InitContext) -> Checkpoints:
    """Make the directory that checkpoints pass through, and empty it of what an earlier daemon has left."""
    if sys.platform != "linux":
        raise SkipPlugin(f"criu needs Linux, this is {sys.platform}")
    if os.geteuid() != 0:
        raise SkipPlugin("only root can checkpoint a container; run the daemon as root")
    from windlass_checkpoint.blobs import BlobCheckpoints
    from windlass_checkpoint.scratch import Scratch

    differ = context.by_id(DIFFER, context.config(Config).differ)
    checkpoints = BlobCheckpoints(
        context.single(RUNTIME), context.single(METADATA), differ, Scratch(context.root / "scratch")
    )
    context.on_stop(lambda: checkpoints.stop(STOP_TIMEOUT))
    return checkpoints


PLUGIN = Plugin(CHECKPOINTS, id="blobs", init=init, config=Config, requires=(RUNTIME, METADATA, DIFFER))
