"""Limits of a container's control group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windlass.errors import InvalidArgument

if TYPE_CHECKING:
    from windlass_oci.runtime_spec import Resources, Spec

CPU_PERIOD = 100_000


def set_memory(spec: Spec, limit: int) -> None:
    """Limit the container's memory, in bytes."""
    _resources(spec)["memory"] = {"limit": limit}


def set_cpus(spec: Spec, cpus: float) -> None:
    """Limit the container's processor time; 1.0 is all of one processor."""
    if not 0.01 <= cpus <= 4096:
        raise InvalidArgument(f"--cpus {cpus:g} is out of range: 0.01 to 4096")
    _resources(spec)["cpu"] = {"quota": int(cpus * CPU_PERIOD), "period": CPU_PERIOD}


def set_pids(spec: Spec, limit: int) -> None:
    """Limit how many processes and threads the container has."""
    if not 1 <= limit < 1 << 32:
        raise InvalidArgument(f"--pids-limit {limit} is out of range: 1 to {(1 << 32) - 1}, or 0 for none")
    _resources(spec)["pids"] = {"limit": limit}


def _resources(spec: Spec) -> Resources:
    return spec["linux"].setdefault("resources", {})
