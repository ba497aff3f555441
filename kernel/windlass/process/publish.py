"""`windlassd publish`: sends an event from stdin to the daemon, as shims of version 1 and early version 2 do.

The few fields are encoded here, so that a shim's event does not wait for the
import of generated modules.
"""

from __future__ import annotations

import sys
import time
from typing import BinaryIO

from windlass.contracts.rpc import authority
from windlass.contracts.values import grpc_target
from windlass.errors import StartError

METHOD = "/containerd.services.events.v1.Events/Forward"
DEADLINE = 10.0
LIMIT = 16 << 20


def publish(address: str | None, namespace: str, topic: str, stdin: BinaryIO | None = None) -> int:
    """Forward the Any message on stdin, trying again while the daemon is away; raises StartError."""
    try:
        import grpc
    except ImportError:
        raise StartError("publish needs grpcio: pip install grpcio") from None
    event = (stdin or sys.stdin.buffer).read(LIMIT + 1)
    if len(event) > LIMIT:
        raise StartError(f"event on stdin is longer than {LIMIT >> 20} MiB")
    request = forward_request(time.time_ns(), namespace, topic, event)
    target = grpc_target(address or "/run/windlass/windlass.sock")
    with grpc.insecure_channel(target, authority(target)) as channel:
        call = channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        try:
            # grpc's own back-off connects again until the deadline
            metadata = (("containerd-namespace", namespace),)
            call(request, timeout=DEADLINE, metadata=metadata, wait_for_ready=True)
        except grpc.RpcError as error:
            raise StartError(f"event {topic} is not published to {address}: {error.details()}") from None
    return 0


def forward_request(nanoseconds: int, namespace: str, topic: str, event: bytes) -> bytes:
    """Return a serialised ForwardRequest; field numbers are those of `containerd.types.Envelope`."""
    seconds, rest = divmod(nanoseconds, 10**9)
    timestamp = b"\x08" + _varint(seconds) + b"\x10" + _varint(rest)
    parts = (timestamp, namespace.encode(), topic.encode(), event)
    return _field(1, b"".join(_field(number, part) for number, part in enumerate(parts, 1)))


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
