"""A call that came before its service: the daemon answers what it can while the rest of it starts."""

from __future__ import annotations

from collections.abc import Callable

from windlass_server.grpc.calls import Call
from windlass_server.http2.streams import Stream


class Held:
    """What a connection has instead of a `windlass_server.grpc.calls.Call`, which it becomes by `release`.

    What arrives of the request is kept and not credited, so that the client's windows bound it.
    """

    __slots__ = ("_begin", "_call", "_forget", "_make", "_parts", "stream")

    def __init__(
        self, stream: Stream, make: Callable[[], Call], begin: Callable[[Call], object], forget: Callable[[Held], None]
    ) -> None:
        """Hold the call that ``make`` and ``begin`` are for; ``forget`` is called if the client leaves before that."""
        self.stream = stream
        self._make = make
        self._begin = begin
        self._forget = forget
        self._parts: list[tuple[bytes, bool]] = []
        self._call: Call | None = None

    def release(self) -> None:
        """Begin."""
        call = self._call = self._make()
        self._begin(call)
        for data, ended in self._parts:
            call.received(memoryview(data), ended)
        self._parts.clear()

    @property
    def running(self) -> bool:
        """Whether its handler has not returned, though the call may be over."""
        return self._call is not None and self._call.running

    def received(self, data: memoryview, ended: bool) -> None:
        """Take bytes of the request; ``ended`` says that they are the last."""
        if self._call is None:
            self._parts.append((bytes(data), ended))  # the memory is the connection's
        else:
            self._call.received(data, ended)

    def gone(self) -> None:
        """End, since nobody reads an answer any more."""
        if self._call is None:
            self._forget(self)
        else:
            self._call.gone()

    def refuse(self, why: str) -> None:
        """End as UNAVAILABLE."""
        if self._call is None:
            self._call = self._make()
            self._forget(self)
        self._call.refuse(why)
