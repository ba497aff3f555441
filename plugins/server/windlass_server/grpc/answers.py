"""The sending half of a call: headers, messages, and the status that ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from windlass import tracing
from windlass.contracts import rpc
from windlass.contracts.metrics import Counter
from windlass.contracts.rpc import Metadata, Method
from windlass.errors import Cancelled, Code, name_of
from windlass.typing import override
from windlass_server.grpc import messages
from windlass_server.grpc import metadata as wire
from windlass_server.grpc.bodies import MOST_HELD
from windlass_server.grpc.links import Link
from windlass_server.grpc.metadata import Refused
from windlass_server.http2.streams import Stream

SERVERS_FAULT = frozenset(
    {Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}
)
"""Statuses that make a server's span one that failed, by OpenTelemetry's conventions for RPCs."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest messages, in bytes."""

    receive: int
    send: int


class Answering(rpc.Call):
    """A call that can be answered."""

    __slots__ = (
        "_begun",
        "_callbacks",
        "_compresses",
        "_counter",
        "_limits",
        "_link",
        "_loop",
        "_method",
        "_namespace",
        "_path",
        "_span",
        "_subject",
        "_trailing",
        "_unsent_headers",
        "metadata",
        "over",
        "stream",
    )

    metadata: Metadata
    over: bool
    _namespace: str
    _method: Method

    def __init__(self, link: Link, stream: Stream, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        """Have nothing sent."""
        super().__init__()
        self._link = link
        self.stream = stream
        self._limits = limits
        self._loop = loop
        self._callbacks: list[Callable[[], None]] | None = None
        self._unsent_headers: bytes | None = wire.INITIAL
        self._path = "a call"
        self._span: tracing.Span | None = None
        self._counter: Counter | None = None
        self._begun = 0.0
        self._subject: Mapping[str, str] = {}
        self._compresses = False
        self._trailing = b""

    # Messages

    async def _write(self, response: object) -> None:
        prefix, data = (b"", b"") if self.over else await self._encode(response)
        if self.over:
            raise Cancelled("the call is over")
        headers = self._headers()
        if prefix:
            self._link.send(self.stream, headers, prefix, None)
            headers = None
        self._link.send(self.stream, headers, data, None)
        await self._link.drained(self.stream)

    async def _respond(self, response: object) -> None:
        prefix, data = (b"", b"") if self.over else await self._encode(response)
        if self.over:
            return
        headers = self._headers()
        trailers = wire.OK + self._trailing
        if self._span is not None or self._counter is not None:
            self._note_end(Code.OK, "")
        self._end()
        if prefix:
            self._link.send(self.stream, headers, prefix, None)
            headers = None
        self._link.send(self.stream, headers, data, trailers)

    async def _encode(self, response: object) -> tuple[bytes, bytes]:
        message = self._method.encode(response)
        if self._counter is not None:
            self._counter.sent += 1
        if self._compresses:
            parts = await messages.gzipped(message, self._limits.send)
        else:
            parts = messages.frame(message, self._limits.send)
        if self._link.backlog + len(parts[1]) > MOST_HELD:
            raise Refused(Code.RESOURCE_EXHAUSTED, "responses that the client does not read take too much memory")
        return parts

    def _headers(self) -> bytes | None:
        """Return the headers of an answer that has messages, None when they are sent."""
        headers, self._unsent_headers = self._unsent_headers, None
        return headers + wire.GZIPPED if headers is not None and self._compresses else headers

    # The end

    def _refuse(self, refused: Refused) -> None:
        if self._unsent_headers is not None:
            self._unsent_headers = wire.initial(refused.status) + refused.headers
        self.finish(refused.code, str(refused))

    def finish(self, code: int, message: str) -> None:
        """Send the status, unless the call is over."""
        if self.over:
            return
        self._note_end(code, message)
        trailers = wire.trailers(code, message) + self._trailing
        if self._unsent_headers is not None:
            trailers, self._unsent_headers = self._unsent_headers + trailers, None
        self._end()
        self._link.send(self.stream, None, b"", trailers)

    def _note_end(self, code: int, message: str) -> None:
        """Tell the log of a failure, and counter and span how the call ended."""
        if self._counter is not None:
            self._counter.end(code, self._begun)
        if code != Code.OK and logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s failed: %s: %s", self._path, name_of(code), message, extra=self._details())
        if self._span is not None:
            self._span.note(**{"rpc.grpc.status_code": int(code)}, **_as_facts(self._subject))
            self._span.end(message or name_of(code) if code in SERVERS_FAULT else "")

    def _details(self) -> dict[str, str]:
        """Return what the log has of a failure besides its reason."""
        namespace, trace = self.value(rpc.NAMESPACE), self._span.trace if self._span is not None else ""
        details = {"namespace": namespace, **self._subject, "trace_id": trace}
        return {name: value for name, value in details.items() if value}

    def _end(self) -> None:
        self.over = True
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            self._loop.call_soon(callback)

    # What the handler uses

    @property
    @override
    def peer(self) -> str:
        return self._link.peer

    @override
    def add_done_callback(self, callback: Callable[[], None]) -> None:
        if self.over:
            self._loop.call_soon(callback)
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    @override
    def send_headers(self, metadata: Iterable[tuple[str, str | bytes]] = ()) -> None:
        encoded = wire.encode_metadata(metadata)
        headers = self._headers()
        if headers is None:
            raise RuntimeError("the headers of the answer are sent already")
        if not self.over:
            self._link.send(self.stream, headers + encoded, b"", None)

    @override
    def set_trailers(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._trailing = wire.encode_metadata(metadata)


def _as_facts(subject: Mapping[str, str]) -> dict[str, str]:
    """Return what a call is about, as the span has it."""
    return {f"containerd.{name.removesuffix('_id')}.id": value for name, value in subject.items()}
