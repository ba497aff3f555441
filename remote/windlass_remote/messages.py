"""Translations between the wire's shared messages and the contracts' values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from windlass.contracts.mounts import Mount
from windlass.contracts.values import Descriptor, Payload, Platform
from windlass.errors import InvalidArgument
from windlass_api.containerd.types import descriptor_pb2, mount_pb2, platform_pb2

EPOCH_LIMIT = 1 << 63
"""Nanoseconds from the epoch that can be kept, some 292 years to either side."""
GO_ZERO = -62135596800
"""Seconds of the year 1, which programs in Go send for a time that they do not know."""


def to_any(payload: Payload | None) -> AnyMessage | None:
    """Return a payload as an Any; None leaves the field out."""
    return None if payload is None else any_of(payload)


def any_of(payload: Payload) -> AnyMessage:
    """Return a payload as an Any."""
    return AnyMessage(type_url=payload.type_url, value=payload.value)


def put_any(field: AnyMessage, payload: Payload | None) -> None:
    """Set a message's field to a payload: a message of its own would be copied; None leaves it out."""
    if payload is not None:
        field.type_url, field.value = payload.type_url, payload.value


def from_any(message: AnyMessage) -> Payload | None:
    """Return an Any as a payload, None for one that is not set."""
    if not message.type_url and not message.value:
        return None
    return Payload(message.type_url, message.value)


def payloads(messages: Mapping[str, AnyMessage]) -> dict[str, Payload]:
    """Return a map of Anys as payloads."""
    return {key: Payload(message.type_url, message.value) for key, message in messages.items()}


def to_timestamp(nanoseconds: int) -> Timestamp | None:
    """Return a time as a message; 0 leaves the field out."""
    if not nanoseconds:
        return None
    return Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def put_timestamp(field: Timestamp, nanoseconds: int) -> None:
    """Set a message's field to a time, which is half the work of a message of its own; 0 leaves it out."""
    if nanoseconds:
        field.seconds, field.nanos = divmod(nanoseconds, 10**9)


def from_timestamp(message: Timestamp) -> int:
    """Return nanoseconds since the epoch, 0 for no time.

    Raises InvalidArgument for a time that 64 bits of them cannot tell.
    """
    if message.seconds == GO_ZERO and not message.nanos:
        return 0
    nanoseconds = message.seconds * 10**9 + message.nanos
    if not (-EPOCH_LIMIT <= nanoseconds < EPOCH_LIMIT and 0 <= message.nanos < 10**9):
        raise InvalidArgument(
            f"{message.seconds} s and {message.nanos} ns are not a time between the years 1678 and 2261"
        )
    return nanoseconds


def to_descriptor(desc: Descriptor) -> descriptor_pb2.Descriptor:
    """Return a descriptor as a message; the wire has no platform in it."""
    # protobuf takes long over an empty map
    annotations = dict(desc.annotations) if desc.annotations else None
    return descriptor_pb2.Descriptor(
        media_type=desc.media_type, digest=desc.digest, size=desc.size, annotations=annotations
    )


def from_descriptor(message: descriptor_pb2.Descriptor) -> Descriptor:
    """Return a descriptor."""
    return Descriptor(message.media_type, message.digest, message.size, dict(message.annotations))


def to_mounts(mounts: Iterable[Mount]) -> list[mount_pb2.Mount]:
    """Return mounts as messages."""
    return [
        mount_pb2.Mount(type=mount.type, source=mount.source, target=mount.target, options=mount.options)
        for mount in mounts
    ]


def from_mounts(messages: Iterable[mount_pb2.Mount]) -> tuple[Mount, ...]:
    """Return mounts."""
    return tuple(Mount(message.type, message.source, tuple(message.options), message.target) for message in messages)


def to_platform(platform: Platform) -> platform_pb2.Platform:
    """Return a platform as a message."""
    return platform_pb2.Platform(
        os=platform.os,
        architecture=platform.architecture,
        variant=platform.variant,
        os_version=platform.os_version,
    )


def from_platform(message: platform_pb2.Platform) -> Platform:
    """Return a platform."""
    return Platform(message.os, message.architecture, message.variant, message.os_version, tuple(message.os_features))
