"""How much of something a peer may send, before it is sent away."""

from __future__ import annotations

from dataclasses import dataclass, field

from windlass_server.http2.frames import ConnectionFailure, ErrorCode

MOST_RESETS = 4096
"""Young streams that a peer may reset at once (CVE-2023-44487)."""
YOUNG = 1.0
"""Seconds; resetting an older stream is not an attack, and a client that goes may reset thousands of them."""
GRANTS_PER_FRAME = 4
"""Window updates that a frame of data allows a peer: one for the stream and one for the connection is usual."""


@dataclass(slots=True)
class Budget:
    """``burst`` at once, ``rate`` a second."""

    what: str
    burst: float
    rate: float
    left: float = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        """Start with a whole burst."""
        self.left = self.burst

    def spend(self, now: float) -> None:
        """Count one. Raises ConnectionFailure when there are too many."""
        self.left = min(self.burst, self.left + (now - self.at) * self.rate) - 1
        self.at = now
        if self.left < 0:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, f"too many {self.what}")


class Budgets:
    """What one peer may do that costs us and not it. Each method raises ConnectionFailure when it is too often."""

    __slots__ = ("_changes", "_earned", "_grants", "_idle", "_resets")

    def __init__(self) -> None:
        """Begin with whole bursts."""
        self._resets = Budget("streams opened and reset", MOST_RESETS, 500)
        self._changes = Budget("changes of settings", 100, 10)
        self._idle = Budget("frames without content", 20_000, 2_000)
        self._grants = Budget("window updates", 20_000, 2_000)
        self._earned = 0

    def reset(self, age: float, now: float) -> None:
        """Count a stream that the peer has reset, ``age`` seconds after it began."""
        if age < YOUNG:
            self._resets.spend(now)

    def refused(self, now: float) -> None:
        """Count a stream that we had to reset."""
        self._resets.spend(now)

    def changed(self, now: float) -> None:
        """Count SETTINGS."""
        self._changes.spend(now)

    def idle(self, now: float) -> None:
        """Count a frame that brings nothing."""
        self._idle.spend(now)

    def granted(self, data_frames: int, now: float) -> None:
        """Count a window update, after ``data_frames`` frames since the last one."""
        self._earned += GRANTS_PER_FRAME * data_frames - 1
        if self._earned < 0:
            self._earned = 0
            self._grants.spend(now)
