"""Deadlines and addresses that the parts of the task manager share."""

from __future__ import annotations

from pathlib import Path

from windlass.records import dataclass


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that a step may take; the names are those of the ``[timeouts]`` keys where there is one."""

    load: float = 5.0
    cleanup: float = 5.0
    shutdown: float = 3.0
    state: float = 2.0
    stats: float = 2.0
    spawn: float = 10.0
    disk: float = 30.0
    request: float = 60.0
    """Any other call to a shim; `Wait` has none."""
    checkpoint: float = 600.0


@dataclass(frozen=True, slots=True)
class ShimSettings:
    """How shims are started, and what they get to know of the daemon."""

    socket_dir: Path
    env: tuple[str, ...] = ()
    grpc_address: str = ""
    ttrpc_address: str = ""
    log_level: str = "info"
