"""One gRPC channel to a daemon: metadata and a deadline on every call, errors as `windlass.errors` classes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
from collections.abc import AsyncIterator
from typing import Protocol, TypeVar
from urllib.parse import unquote

import grpc
import grpc.aio

from windlass.contracts.rpc import authority, reset_by
from windlass.contracts.values import grpc_target
from windlass.errors import Code, DeadlineExceeded, Error, PermissionDenied, Unavailable, from_code

NAMESPACE = "containerd-namespace"
LEASE = "containerd-lease"
TIMEOUT = 30.0
MESSAGE_LIMIT = 16 << 20
SOCKET_PATH_LIMIT = 107
SCHEME_OR_PORT = re.compile(r"^[a-z][a-z0-9+.-]*:|:[0-9]+$")

Q = TypeVar("Q")
R = TypeVar("R")


class Unary(Protocol[Q, R]):
    """A method of a stub with one request and one response."""

    def __call__(
        self, request: Q, *, timeout: float | None = None, metadata: grpc.aio.Metadata | None = None
    ) -> grpc.aio.UnaryUnaryCall[Q, R]:
        """Begin the call."""


class ServerStream(Protocol[Q, R]):
    """A method of a stub with one request and a stream of responses."""

    def __call__(
        self, request: Q, *, timeout: float | None = None, metadata: grpc.aio.Metadata | None = None
    ) -> grpc.aio.UnaryStreamCall[Q, R]:
        """Begin the call."""


class Connection:
    """A channel with a namespace and possibly a lease; make it while an event loop runs."""

    def __init__(self, address: str, namespace: str, timeout: float = TIMEOUT) -> None:
        self.address = address
        self.namespace = namespace
        self.lease = ""
        self.timeout = timeout
        options: list[tuple[str, str | int]] = [
            ("grpc.max_receive_message_length", MESSAGE_LIMIT),
            ("grpc.max_send_message_length", MESSAGE_LIMIT),
            ("grpc.initial_reconnect_backoff_ms", 100),
            # What a connection may take, in spite of its name; a busy daemon accepts late.
            ("grpc.min_reconnect_backoff_ms", 10_000),
            ("grpc.max_reconnect_backoff_ms", 3000),
            ("grpc.enable_http_proxy", 0),
            *authority(target(address)),
        ]
        self.channel = grpc.aio.insecure_channel(target(address), options)

    def under(self, lease: str) -> Connection:
        """Return a connection over the same channel whose calls carry a lease."""
        other = Connection.__new__(Connection)
        other.__dict__.update(self.__dict__, lease=lease)
        return other

    async def close(self) -> None:
        """Close the channel, for the connections that share it too."""
        await self.channel.close()

    @property
    def metadata(self) -> grpc.aio.Metadata:
        """The headers of a call."""
        pairs = [(NAMESPACE, self.namespace)]
        if self.lease:
            pairs.append((LEASE, self.lease))
        return grpc.aio.Metadata(*pairs)

    async def call(self, method: Unary[Q, R], request: Q, timeout: float | None = 0) -> R:
        """Make a call; ``timeout`` None waits for ever, 0 takes the connection's own."""
        try:
            return await method(request, timeout=self.deadline(timeout), metadata=self.metadata)
        except grpc.aio.AioRpcError as error:
            raise self.error(error) from None

    async def stream(self, method: ServerStream[Q, R], request: Q, timeout: float | None = 0) -> AsyncIterator[R]:
        """Yield the responses of a call; it is cancelled when the iteration is left."""
        call = method(request, timeout=self.deadline(timeout), metadata=self.metadata)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise self.error(error) from None
        finally:
            call.cancel()

    @contextlib.asynccontextmanager
    async def step(self, what: str, timeout: float | None = 0) -> AsyncIterator[None]:
        """Bound one step of a longer exchange, and map its errors."""
        try:
            async with asyncio.timeout(self.deadline(timeout)):
                yield
        except TimeoutError:
            raise DeadlineExceeded(f"{what} took longer than {self.deadline(timeout):g} s") from None
        except grpc.aio.AioRpcError as error:
            raise self.error(error) from None

    def deadline(self, timeout: float | None) -> float | None:
        """Return the seconds that a call gets."""
        return self.timeout if timeout == 0 else timeout

    def error(self, error: grpc.aio.AioRpcError) -> Error:
        """Return what a failed call means to the caller."""
        code: int = error.code().value[0]
        message = error.details() or error.code().name.lower().replace("_", " ")
        if code == Code.UNAVAILABLE and "failed to connect to all addresses" in message:
            return unreachable(self.address)
        if reset := reset_by(message):
            return from_code(
                code, f"daemon at {self.address} refused the call by HTTP/2's {reset}; its log may say why"
            )
        if message.startswith("Stream removed"):
            # grpc's own words, now and then and with various codes, for a peer that died during the call
            return Unavailable(f"daemon at {self.address} closed the connection; its log may say why")
        if code == Code.DEADLINE_EXCEEDED and message == "Deadline Exceeded":
            return DeadlineExceeded(f"the daemon at {self.address} did not answer within {self.timeout:g} s")
        return from_code(code, message)


def target(address: str) -> str:
    """Return the address as gRPC spells it: a path is a unix socket, whatever has another scheme or a port is not."""
    named = address.startswith("unix:")
    if not named and SCHEME_OR_PORT.search(address):
        return address
    path = unquote(address.removeprefix("unix://").removeprefix("unix:")) if named else address
    return grpc_target(os.path.abspath(path))  # noqa: PTH100 - the text, without asking the file system


def unreachable(address: str) -> Error:
    """Return an error that says why no daemon answers at an address, and what to do."""
    remedy = "start it with `windlassd`, or name another socket with --address"
    scheme, _, path = target(address).partition(":")
    path = unquote(path)
    if scheme != "unix":
        return Unavailable(f"daemon at {address} cannot be reached; {remedy}")
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        return Unavailable(f"socket path {path} is longer than the {SOCKET_PATH_LIMIT} bytes that Linux takes")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            probe.connect(path)
    except PermissionError:
        return PermissionDenied(f"socket {path} may not be opened by user {os.getuid()}; use root or its group")
    except OSError as error:
        why = {errno.ENOENT: "there is no such socket", errno.ECONNREFUSED: "no process listens on that socket"}
        state = why.get(error.errno or 0, error.strerror or str(error))
        return Unavailable(f"daemon at {path} is not running: {state}; {remedy}")
    return Unavailable(f"daemon at {path} closed the connection; try again")
