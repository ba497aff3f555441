"""What a gRPC handler is given beside the request: the interface of `grpc.aio.ServicerContext`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio

from windlass.errors import Code

if TYPE_CHECKING:
    from windlass_server.calls import Call
    from windlass_server.metadata import Metadata

EOF = grpc.aio.EOF
CODES: dict[int, grpc.StatusCode] = {status.value[0]: status for status in grpc.StatusCode}


def number(code: grpc.StatusCode | int) -> int:
    """Return a status code as it is on the wire; what is none is UNKNOWN."""
    value = code.value[0] if isinstance(code, grpc.StatusCode) else code
    return value if value in CODES else int(Code.UNKNOWN)


class Context:
    """One call, as its handler sees it. Not there: compression of responses by a handler's wish."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        """Speak for ``call``."""
        self._call = call

    def invocation_metadata(self) -> Metadata:
        """Return the client's metadata, without the headers that are HTTP's and gRPC's own."""
        return self._call.metadata

    def peer(self) -> str:
        """Return the client's address: ``unix:``, ``ipv4:127.0.0.1:7000``."""
        return self._call.stream.peer

    def peer_identities(self) -> None:
        """Return None: calls are not authenticated beyond the socket's mode, or TLS."""

    def peer_identity_key(self) -> None:
        """Return None, as `peer_identities`."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return nothing, as `peer_identities`."""
        return {}

    def time_remaining(self) -> float | None:
        """Return the seconds until the client's deadline, None without one."""
        return self._call.time_remaining()

    # Any, here and below: messages are of the types that the handler's service has.
    async def read(self) -> Any:
        """Return the next request of a stream, `grpc.aio.EOF` at its end."""
        return await self._call.read()

    async def write(self, message: Any) -> None:
        """Send one response of a stream; returns when the client, or the transport, has room for more."""
        await self._call.write(message)

    async def send_initial_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Send the headers now, not with the first response."""
        self._call.send_headers(metadata)

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        """End the call with a status. Always raises `grpc.aio.AbortError`."""
        call = self._call
        call.trailing = tuple(trailing_metadata) or call.trailing
        call.finish(number(code) or int(Code.UNKNOWN), details or call.details)
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status that is one object. Always raises `grpc.aio.AbortError`."""
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Send this with the status."""
        self._call.trailing = tuple(trailing_metadata)

    def trailing_metadata(self) -> Metadata:
        """Return what will be sent with the status."""
        return self._call.trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        """End with this status when the handler returns or raises."""
        self._call.code = number(code)

    def code(self) -> grpc.StatusCode | None:
        """Return the status that was set."""
        return None if self._call.code is None else CODES[self._call.code]

    def set_details(self, details: str) -> None:
        """End with this message when the handler returns or raises."""
        self._call.details = details

    def details(self) -> str:
        """Return the message that was set."""
        return self._call.details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Accept any wish; responses are compressed for clients that send gzip."""

    def disable_next_message_compression(self) -> None:
        """Do nothing, as `set_compression`."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call ``callback`` with this context on the loop when the status is sent or the client has gone."""
        self._call.add_done_callback(lambda: callback(self))

    def cancelled(self) -> bool:
        """Tell whether the client has gone, or its deadline has passed."""
        return self._call.cancelled

    def done(self) -> bool:
        """Tell whether nothing can be sent any more."""
        return self._call.over
