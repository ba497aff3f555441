"""The Events services, on gRPC for clients and on ttrpc for shims."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from windlass.contracts.events import Envelope, Exchange
from windlass.contracts.rpc import Call
from windlass.contracts.values import Payload
from windlass.errors import InvalidArgument, Unimplemented
from windlass_api.containerd.services.events.ttrpc.v1 import events_pb2 as ttrpc_pb
from windlass_api.containerd.services.events.v1 import events_pb2 as pb
from windlass_api.containerd.types import event_pb2
from windlass_remote.messages import GO_ZERO, from_timestamp, to_any, to_timestamp


def to_proto(envelope: Envelope) -> event_pb2.Envelope:
    """Return an envelope as a message, which has a time even if that is the epoch."""
    return event_pb2.Envelope(
        timestamp=to_timestamp(envelope.timestamp) or Timestamp(),
        namespace=envelope.namespace,
        topic=envelope.topic,
        event=to_any(envelope.event),
    )


def from_proto(message: event_pb2.Envelope) -> Envelope:
    """Return an envelope; one without a time is of the epoch, as in containerd.

    Raises InvalidArgument for the zero time of Go, which says there that it has not been set
    (core/events/exchange/exchange.go), and for values that are not a time.
    """
    if message.timestamp.seconds == GO_ZERO and not message.timestamp.nanos:
        raise InvalidArgument(f"event on {message.topic!r} has Go's zero time; set the time that it happened")
    event = _payload(message.event)
    return Envelope(from_timestamp(message.timestamp), message.namespace, message.topic, event)


def _payload(message: AnyMessage) -> Payload:
    return Payload(message.type_url, message.value)


class Events:
    """``containerd.services.events.v1.Events``."""

    def __init__(self, exchange: Exchange) -> None:
        """Translate for ``exchange``."""
        self._exchange = exchange

    async def publish(self, request: pb.PublishRequest, call: Call) -> Empty:
        """Deliver a client's event in its namespace."""
        self._exchange.publish(call.namespace, request.topic, _payload(request.event))
        return Empty()

    async def forward(self, request: pb.ForwardRequest, call: Call) -> Empty:
        """Deliver an event that was stamped elsewhere."""
        self._exchange.forward(from_proto(request.envelope))
        return Empty()

    async def subscribe(self, request: pb.SubscribeRequest, call: Call) -> AsyncIterator[event_pb2.Envelope]:
        """Return every event that matches from now on."""
        async with self._exchange.subscribe(list(request.filters)) as envelopes:
            # tell the client at once that it will miss nothing from here on
            call.send_headers()
            async for envelope in envelopes:
                yield to_proto(envelope)


class TtrpcEvents:
    """``containerd.services.events.ttrpc.v1.Events``, to which shims report."""

    name = "containerd.services.events.ttrpc.v1.Events"

    def __init__(self, exchange: Exchange) -> None:
        """Translate for ``exchange``."""
        self._exchange = exchange

    async def call(self, method: str, namespace: str, payload: bytes) -> bytes:
        """Answer ``Forward``."""
        if method != "Forward":
            raise Unimplemented(f"method {method} of {self.name}")
        try:
            request = ttrpc_pb.ForwardRequest.FromString(payload)
        except DecodeError as error:
            raise InvalidArgument(f"ForwardRequest does not parse: {error}") from None
        self._exchange.forward(from_proto(request.envelope))
        return b""
