"""The process behind a socket: a gRPC channel, with metadata and a deadline on every call, and our errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from windlass.contracts.rpc import LEASE, NAMESPACE, authority, reset_by
from windlass.contracts.values import grpc_target
from windlass.errors import Code, DeadlineExceeded, Error, Unavailable, from_code

TIMEOUT = 60.0
MESSAGE_LIMIT = 16 << 20
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # What a connection may take, in spite of its name; a busy peer accepts late.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
    # Or channels to the same socket share one connection, and its trouble.
    ("grpc.use_local_subchannel_pool", 1),
)

NO_CONNECTION = ("failed to connect", "Socket closed", "Connection reset", "GOAWAY", "Broken pipe")

M = TypeVar("M", bound=Message)


class Peer:
    """A channel to ``address``: a path, or ``unix://`` with one, or what else gRPC connects to.

    Nothing is connected before the first call. ``name`` is for messages.
    """

    def __init__(
        self, address: str, namespace: str = "default", lease: str = "", name: str = "", timeout: float = TIMEOUT
    ) -> None:
        self.address = address
        self.name = name or f"the peer at {address}"
        self.timeout = timeout
        self.metadata = ((NAMESPACE, namespace), *([(LEASE, lease)] if lease else []))
        self.channel = grpc.insecure_channel(target(address), options(address))

    def close(self) -> None:
        """End the connection; calls under way fail."""
        self.channel.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, method: Callable[..., M], request: Message, timeout: float = 0, namespace: str = "") -> M:
        """Make a call, for at most ``timeout`` seconds, in ``namespace``; 0 and "" are the peer's own."""
        metadata = ((NAMESPACE, namespace), *self.metadata[1:]) if namespace else self.metadata
        try:
            return method(request, timeout=timeout or self.timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise self.error(error, timeout) from None

    def stream(self, method: Callable[..., Iterator[M]], request: Message, timeout: float = 0) -> Iterator[M]:
        """Return the responses of a call, the first of which has arrived: what fails at once fails here.

        ``timeout`` is for all of them, with what is done about each; the next one comes within the peer's own.
        """
        call = method(request, timeout=timeout or self.timeout, metadata=self.metadata)
        responses = self._responses(self._in_time(call) if timeout > self.timeout else call, timeout)
        first = next(responses, None)
        return _chain(first, responses)

    def _in_time(self, call: Iterator[M]) -> Iterator[M]:
        """Yield the responses of a call, which is cancelled when one takes longer than the peer may."""
        late = threading.Event()

        def expire() -> None:
            late.set()
            if isinstance(call, grpc.Call):
                call.cancel()

        while True:
            watch = threading.Timer(self.timeout, expire)
            watch.daemon = True
            watch.start()
            try:
                response = next(call, None)
            except grpc.RpcError:
                if late.is_set():
                    raise DeadlineExceeded(
                        f"{self.name} sent nothing more for {self.timeout:g} s; see what keeps it"
                    ) from None
                raise
            finally:
                watch.cancel()
            if response is None:
                return
            yield response

    def _responses(self, call: Iterator[M], timeout: float) -> Iterator[M]:
        try:
            yield from call
        except grpc.RpcError as error:
            raise self.error(error, timeout) from None
        finally:
            if isinstance(call, grpc.Call):
                call.cancel()

    def error(self, error: grpc.RpcError, timeout: float = 0) -> Error:
        """Return what a failed call, which had ``timeout`` seconds, means to the caller."""
        return meaning(error, self.name, self.address, timeout or self.timeout)


def meaning(error: grpc.RpcError, name: str, address: str, timeout: float) -> Error:
    """Return what a call to ``name`` that failed means to the caller."""
    code: int = error.code().value[0]
    message = error.details() or error.code().name.lower().replace("_", " ")
    if reset := reset_by(message):
        remedy = "try again" if reset == "REFUSED_STREAM" else "its log may say why"
        return from_code(code, f"{name} at {address} refused the call by HTTP/2's {reset}; {remedy}")
    # "Stream removed", with various codes, is what grpc itself says now and then of a peer that died during the call.
    if (code == Code.UNAVAILABLE and _nobody_there(message)) or message.startswith("Stream removed"):
        return Unavailable(f"{name} cannot be reached at {address}; see whether it runs, and try again")
    if code == Code.DEADLINE_EXCEEDED and message == "Deadline Exceeded":
        return DeadlineExceeded(f"{name} did not answer within {timeout:g} s; see what keeps it")
    return from_code(code, message)


def target(address: str) -> str:
    """Return an address as gRPC spells it; a bare path is a unix socket."""
    return grpc_target(address)


def options(address: str) -> list[tuple[str, str | int]]:
    """Return the options of a channel to ``address``."""
    return [*OPTIONS, *authority(target(address))]


def _chain(first: M | None, rest: Iterator[M]) -> Iterator[M]:
    if first is not None:
        yield first
        yield from rest


def _nobody_there(message: str) -> bool:
    """Return whether grpc says by these words that there is no connection, rather than the peer itself."""
    return any(words in message for words in NO_CONNECTION)
