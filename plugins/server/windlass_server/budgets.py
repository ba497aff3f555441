"""How much of something a peer may send, before it is sent away."""

from __future__ import annotations

from dataclasses import dataclass, field

from windlass_server.frames import ConnectionFailure, ErrorCode


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
