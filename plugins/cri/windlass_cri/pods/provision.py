"""What pods are given that their clients do not say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field

from windlass.records import dataclass
from windlass_cri.spec.selinux import Selinux


async def no_image(snapshotter: str) -> None:
    """Need no image."""


@dataclass(frozen=True)
class Provision:
    """As the configuration says; without one, nothing."""

    selinux: Selinux = field(default_factory=lambda: Selinux(enabled=False))
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """What is set in pods that have a network of their own, unless their clients set it."""
    ensure_image: Callable[[str], Awaitable[None]] = no_image
    """Sees that the sandbox image is there, for a snapshotter, empty for that of all."""
