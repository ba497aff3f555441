"""RPCs: what a service registers with a server, and what a handler gets of a call.

Method ``ListPids`` of the wire is method ``list_pids(request, call)`` of an object; one
that the object lacks answers UNIMPLEMENTED. A handler raises the errors of
`windlass.errors`, which reach the client as their statuses. Nothing here needs grpc.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from windlass.contracts.values import check_identifier
from windlass.errors import Error, FailedPrecondition, from_code
from windlass.marks import is_quick
from windlass.records import dataclass

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

NAMESPACE = "containerd-namespace"
LEASE = "containerd-lease"
HTTP2_ERRORS = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)
"""By their numbers, RFC 9113 section 7."""
_RESET = re.compile(r"RST_STREAM with error code (\d+)")
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

Metadata = tuple[tuple[str, str | bytes], ...]
"""Keys and values in the order of the wire; a key may come twice, and values of keys that end in ``-bin`` are bytes."""


class Call:
    """One call of a client, as its handler sees it.

    Servers subclass it. As it is here it has no connection: no deadline, and no client that could leave.
    """

    # No slots: a compiled subclass (windlass_server.grpc.answers) has its own fields where they would be.

    def __init__(self, metadata: Metadata = (), namespace: str = "") -> None:
        """Have the client's ``metadata``; ``namespace`` is that of a call that names none."""
        self.metadata = metadata
        self.over = False
        """Whether nothing can be sent any more."""
        self._namespace = namespace

    def value(self, key: str, default: str = "") -> str:
        """Return the first text under a key of the metadata (docs/containerd 3.1)."""
        return next((value for name, value in self.metadata if name == key and isinstance(value, str)), default)

    @property
    def namespace(self) -> str:
        """The namespace header. Raises FailedPrecondition without one, InvalidArgument for an invalid one."""
        namespace = self.value(NAMESPACE, self._namespace)
        if not namespace:
            raise FailedPrecondition("namespace is required")
        check_identifier("namespace", namespace)
        return namespace

    @property
    def lease(self) -> str:
        """The lease header, empty without one."""
        return self.value(LEASE)

    @property
    def peer(self) -> str:
        """The client's address, as gRPC writes it: ``unix:``, ``ipv4:127.0.0.1:7000``."""
        return ""

    @property
    def remaining(self) -> float | None:
        """The seconds until the client's deadline, None without one."""
        return None

    async def cancelled(self) -> None:
        """Return when the client has gone, or its deadline has passed."""
        gone = asyncio.Event()
        self.add_done_callback(gone.set)
        await gone.wait()

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` on the loop once the status is sent or the client has gone."""

    def send_headers(self, metadata: Iterable[tuple[str, str | bytes]] = ()) -> None:
        """Send the headers now, not with the first response."""

    def set_trailers(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Send this with the status."""


Answer = Awaitable[object] | AsyncIterable[object]
"""What a handler returns: a response to await, or an iterable of a stream of them."""
Handler = Callable[[object, Call], Answer]
"""Takes the request, or an asynchronous iterator of requests."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: its handler, its messages, and which side sends a stream of them."""

    path: str
    handler: Handler
    decode: Callable[[bytes], object]
    encode: Callable[..., bytes]
    """Takes a response of the class that the service describes."""
    takes_stream: bool = False
    gives_stream: bool = False
    namespace: str = ""
    """That of calls that name none."""
    quick: bool = False
    """Its handler is marked as `windlass.marks.quick`: a server may take its first step before it makes a task."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A response that a handler has encoded itself, or got so."""

    data: bytes


class Server(Protocol):
    """Serves services."""

    def add(self, service: str, methods: Mapping[str, Method]) -> None:
        """Serve ``methods``, by their names on the wire, as the service with this full name.

        Raises AlreadyExists for a second service of one name.
        """
        ...


def serve(server: Server, descriptor: ServiceDescriptor, service: object, namespace: str = "") -> None:
    """Add an object to a server, as the service that ``descriptor`` describes.

    ``namespace`` is that of calls that name none.
    """
    server.add(descriptor.full_name, methods_of(descriptor, service, namespace))


def methods_of(descriptor: ServiceDescriptor, service: object, namespace: str = "") -> dict[str, Method]:
    """Return the RPCs of a service that an object has methods for."""
    return {
        method.name: _method(f"/{descriptor.full_name}/{method.name}", method, service, namespace)
        for method in descriptor.methods
        if is_implemented(service, method.name)
    }


def method_name(name: str) -> str:
    """Return what an RPC is called in our objects: ``ListPids`` is ``list_pids``."""
    return _WORD.sub("_", name).lower()


def is_implemented(service: object, method: str) -> bool:
    """Return whether ``service`` serves the RPC ``method``."""
    return hasattr(service, method_name(method))


def _method(path: str, method: MethodDescriptor, service: object, namespace: str) -> Method:
    from google.protobuf.message_factory import GetMessageClass

    function = getattr(service, method_name(method.name))
    return Method(
        path,
        _streaming(function) if method.server_streaming else _unary(function),
        GetMessageClass(method.input_type).FromString,
        _encoder(GetMessageClass(method.output_type).SerializeToString),
        method.client_streaming,
        method.server_streaming,
        namespace,
        is_quick(function) and not (method.client_streaming or method.server_streaming),
    )


def _encoder(serialize: Callable[..., bytes]) -> Callable[..., bytes]:
    def encode(response: object) -> bytes:
        return response.data if type(response) is Encoded else serialize(response)

    return encode


def _unary(function: Callable[[object, Call], Awaitable[object]]) -> Handler:
    async def handle(request: object, call: Call) -> object:
        try:
            return await function(request, call)
        except Error as error:
            raise printable(error) from None

    return handle


def _streaming(function: Callable[[object, Call], AsyncIterator[object]]) -> Handler:
    async def handle(request: object, call: Call) -> AsyncIterator[object]:
        responses = function(request, call)
        try:
            async for response in responses:
                yield response
        except Error as error:
            raise printable(error) from None
        finally:
            if isinstance(responses, AsyncGenerator):
                await responses.aclose()  # or it would end some time after the call

    return handle


def printable(error: Error) -> Error:
    """Return an error whose message is one line: it may quote names that strangers chose, and terminals show it."""
    text = str(error)
    if text.isprintable():
        return error
    return from_code(error.code, "".join(char if char.isprintable() else " " for char in text))


def authority(target: str) -> list[tuple[str, str]]:
    """Return the option that channels to ``target`` need.

    To a unix socket gRPC sends the percent-encoded path as ``:authority``. Servers that
    want a host name there, such as those of Rust's h2, refuse that; grpc-go sends localhost.
    """
    return [("grpc.default_authority", "localhost")] if target.startswith("unix") else []


def reset_by(details: str) -> str:
    """Return the HTTP/2 error by which a peer has reset a call, from what grpc says of it, "" if that is not why."""
    found = _RESET.search(details)
    number = int(found[1]) if found else len(HTTP2_ERRORS)
    return HTTP2_ERRORS[number] if number < len(HTTP2_ERRORS) else f"error {number}" if found else ""
