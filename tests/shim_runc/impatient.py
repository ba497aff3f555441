"""A shim that gives loggers little time, so that tests need not wait for what is to be killed."""

from __future__ import annotations

from collections.abc import Sequence

from windlass_shim_runc import entry, logger


def serve(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Be a shim."""
    logger.READY_TIMEOUT = logger.STOP_TIMEOUT = 0.5
    return entry.serve(arguments, descriptors)
