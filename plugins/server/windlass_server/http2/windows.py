"""Flow control (RFC 9113 section 5.2): how many bytes of data one side may still send to the other."""

from __future__ import annotations

from windlass_server.http2.frames import DEFAULT_WINDOW, LARGEST_WINDOW


class SendWindow:
    """What the peer lets us send; below 0 after it made its windows smaller."""

    __slots__ = ("size",)

    def __init__(self, size: int = DEFAULT_WINDOW) -> None:
        """Begin with ``size`` bytes."""
        self.size = size

    def spend(self, size: int) -> None:
        """Count ``size`` bytes as sent."""
        self.size -= size

    def grow(self, increment: int) -> bool:
        """Take the peer's grant; return whether the window is one that RFC 9113 section 6.9.1 allows."""
        self.size += increment
        return self.size <= LARGEST_WINDOW


class ReceiveWindow:
    """What we let the peer send. It grows in steps of a quarter, so that not every frame of data costs a grant."""

    __slots__ = ("_owed", "_step", "size")

    def __init__(self, size: int) -> None:
        """Begin with ``size`` bytes."""
        self.size = size
        self._step = size // 4
        self._owed = 0

    def spend(self, size: int) -> bool:
        """Count ``size`` bytes as received; return whether the peer was allowed to send them."""
        self.size -= size
        return self.size >= 0

    def release(self, size: int) -> int:
        """Count ``size`` bytes as taken; return what to grant the peer now, 0 while it is too little."""
        self._owed += size
        if self._owed < self._step:
            return 0
        granted, self._owed = self._owed, 0
        self.size += granted
        return granted
