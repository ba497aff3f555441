"""The events service: what happens in the daemon, as it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from windlass_api.containerd.events import (  # noqa: F401 - importing registers the messages
    container_pb2,
    content_pb2,
    namespace_pb2,
    snapshot_pb2,
    task_pb2,
)
from windlass_api.containerd.services.events.v1 import events_pb2 as pb
from windlass_api.containerd.services.events.v1.events_pb2_grpc import EventsStub
from windlass_api.containerd.services.images.v1 import events_pb2 as _images  # noqa: F401 - as above
from windlass_api.containerd.types.event_pb2 import Envelope
from windlass_client.connection import Connection


class Events:
    """Events of every namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = EventsStub(connection.channel)

    def subscribe(self, *filters: str) -> AsyncIterator[Envelope]:
        """Yield the events that match one of the filters, from now on and for ever."""
        return self._connection.stream(self._stub.Subscribe, pb.SubscribeRequest(filters=filters), None)


def decode(payload: AnyMessage) -> dict[str, object]:
    """Return an event's fields under their own names; one that we do not know keeps its type and size."""
    try:
        found = descriptor_pool.Default().FindMessageTypeByName(payload.type_url.rpartition("/")[2])
        message = message_factory.GetMessageClass(found)()
        message.ParseFromString(payload.value)
    except (KeyError, DecodeError):
        return {"@type": payload.type_url, "bytes": len(payload.value)}
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert isinstance(fields, dict)
    return fields
