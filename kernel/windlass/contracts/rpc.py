"""Serves a gRPC service, given by its descriptor, with the methods of a plain object.

Method ``ListPids`` of the wire is method ``list_pids(request, call)`` here; one
that the object lacks answers UNIMPLEMENTED. Errors become their statuses in this
one place. grpc is imported when the first service is registered, not before.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from windlass.contracts.values import check_identifier
from windlass.errors import Error, FailedPrecondition

if TYPE_CHECKING:
    import grpc
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


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client: what its metadata said, and its gRPC context for what is rarely needed."""

    # Any: a grpc.aio.ServicerContext of any request and response.
    context: Any
    metadata: dict[str, str]

    @property
    def namespace(self) -> str:
        """The namespace header. Raises FailedPrecondition without one, InvalidArgument for no identifier."""
        namespace = self.metadata.get(NAMESPACE, "")
        if not namespace:
            raise FailedPrecondition("namespace is required")
        check_identifier("namespace", namespace)
        return namespace

    @property
    def lease(self) -> str:
        """The lease header, empty without one."""
        return self.metadata.get(LEASE, "")


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


def method_name(name: str) -> str:
    """Return what an RPC is called in our objects: ``ListPids`` is ``list_pids``."""
    return _WORD.sub("_", name).lower()


def is_implemented(service: object, method: str) -> bool:
    """Tell whether ``service`` serves the RPC ``method``."""
    return hasattr(service, method_name(method))


class Server(Protocol):
    """What takes handlers: the listener's own server, or one of `grpc.aio`."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Serve what these handle."""
        ...


def serve(server: Server, descriptor: ServiceDescriptor, service: object, namespace: str = "") -> None:
    """Add the methods of ``service`` to a server, as the service that ``descriptor`` describes.

    ``namespace`` is that of calls that have none.
    """
    import grpc

    given = {NAMESPACE: namespace} if namespace else {}
    methods = {
        method.name: _method_handler(method, getattr(service, method_name(method.name)), given)
        for method in descriptor.methods
        if is_implemented(service, method.name)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(descriptor.full_name, methods),))


# Any, here and below: requests and responses are of the messages that the descriptor names.
def _method_handler(
    method: MethodDescriptor, function: Callable[..., Any], given: dict[str, str]
) -> grpc.RpcMethodHandler[Any, Any]:
    import grpc
    from google.protobuf.message_factory import GetMessageClass

    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    response = GetMessageClass(method.output_type)
    return kinds[method.client_streaming, method.server_streaming](
        _streaming(function, given) if method.server_streaming else _unary(function, given),
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=response.SerializeToString,
    )


def _unary(function: Callable[..., Any], given: dict[str, str]) -> Callable[..., Any]:
    async def handle(request: Any, context: Any) -> Any:
        try:
            return await function(request, _call(context, given))
        except Error as error:
            await context.abort(_status(error.code), _told(error))

    return handle


def _streaming(function: Callable[..., Any], given: dict[str, str]) -> Callable[..., Any]:
    async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for response in function(request, _call(context, given)):
                yield response
        except Error as error:
            await context.abort(_status(error.code), _told(error))

    return handle


def _call(context: Any, given: dict[str, str]) -> Call:
    metadata: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            metadata.setdefault(key, value)  # of several values the first counts (docs/containerd 3.1)
    return Call(context, {**given, **metadata} if given else metadata)


def _told(error: Error) -> str:
    """Return a message on one line: it may quote names that strangers have chosen, and goes to terminals and logs."""
    text = str(error)
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


@cache
def _status(code: int) -> grpc.StatusCode:
    import grpc

    return {status.value[0]: status for status in grpc.StatusCode}[code]


async def cancelled(context: Any) -> None:
    """Return when the client has gone."""
    gone = asyncio.Event()
    context.add_done_callback(lambda _: gone.set())
    await gone.wait()
