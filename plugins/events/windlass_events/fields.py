"""What filters can read of an event: namespace, topic and fields of the payload (wire/README.md, "fieldpaths")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import import_module

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default, DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from windlass.contracts.events import Envelope
from windlass.filters.expressions import ABSENT, label_of, value_of

PAYLOADS = (
    "windlass_api.containerd.events.container_pb2",
    "windlass_api.containerd.events.content_pb2",
    "windlass_api.containerd.events.namespace_pb2",
    "windlass_api.containerd.events.sandbox_pb2",
    "windlass_api.containerd.events.snapshot_pb2",
    "windlass_api.containerd.events.task_pb2",
    "windlass_api.containerd.services.images.v1.events_pb2",
)
"""Modules of the payloads that have readable fields; imported when a filter first asks for one."""

LABELS = "labels"
MAX_DEPTH = 16
MAX_TYPES = 256
LONGEST_NAME = 256
"""Characters of a type's name; those of longer ones, which strangers may send, are not remembered."""


class ReadableEvent:
    """An envelope as filters see it; decodes the payload once, if a filter asks for it."""

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self._message: Message | None = None
        self._decoded = False

    def field(self, fieldpath: Sequence[str]) -> tuple[str, bool]:
        """Answer for a field path, as a `windlass.filters.expressions.Adaptor` does."""
        match fieldpath[0]:
            case "namespace":
                return value_of(self.envelope.namespace)
            case "topic":
                return value_of(self.envelope.topic)
            case "event":
                return ABSENT if (message := self._payload()) is None else read_field(message, fieldpath[1:])
            case _:
                return ABSENT

    def _payload(self) -> Message | None:
        if not self._decoded:
            self._message = decode(self.envelope.event.type_url, self.envelope.event.value)
            self._decoded = True
        return self._message


def read_field(message: Message, fieldpath: Sequence[str]) -> tuple[str, bool]:
    """Return the field of a message that is marked as readable; numbers, times and lists never are."""
    if not fieldpath or len(fieldpath) > MAX_DEPTH or not _is_readable(message.DESCRIPTOR):
        return ABSENT
    field = message.DESCRIPTOR.fields_by_name.get(fieldpath[0])
    if field is None:
        return ABSENT
    value = getattr(message, field.name)
    if field.name == LABELS and isinstance(value, Mapping):
        return label_of(value, fieldpath)
    if field.is_repeated:
        return ABSENT
    if field.type == FieldDescriptor.TYPE_STRING:
        return value_of(value)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return str(value).lower(), True
    if field.type != FieldDescriptor.TYPE_MESSAGE or not message.HasField(field.name):
        return ABSENT
    inner = decode(value.type_url, value.value) if isinstance(value, AnyMessage) else value
    return ABSENT if inner is None else read_field(inner, fieldpath[1:])


def decode(type_url: str, value: bytes) -> Message | None:
    """Return the message in a payload; None for a type that is not known, and for bytes that do not fit it."""
    name = type_url.rpartition("/")[2]
    kind = _message_class(name) if len(name) <= LONGEST_NAME else None
    if kind is None:
        return None
    try:
        return kind.FromString(value)
    except DecodeError:
        return None


@cache
def _pool() -> DescriptorPool:
    for module in PAYLOADS:
        import_module(module)
    return Default()


@lru_cache(maxsize=MAX_TYPES)
def _message_class(name: str) -> type[Message] | None:
    try:
        return GetMessageClass(_pool().FindMessageTypeByName(name))
    except KeyError:
        return None


@lru_cache(maxsize=MAX_TYPES)
def _is_readable(kind: Descriptor) -> bool:
    """Return whether the message, or the file that it is in, is marked for filters."""
    from windlass_api.containerd.types.fieldpath_pb2 import fieldpath, fieldpath_all

    in_file: bool = kind.file.GetOptions().Extensions[fieldpath_all]
    alone: bool = kind.GetOptions().Extensions[fieldpath]
    return in_file or alone
