"""Events that clients and shims forward, as containerd takes them."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from windlass.contracts.rpc import Call
from windlass.errors import InvalidArgument
from windlass_api.containerd.services.events.v1 import events_pb2 as pb
from windlass_api.containerd.types.event_pb2 import Envelope
from windlass_events.exchange import LocalExchange
from windlass_services.events import Events, to_proto

CALL = Call((("containerd-namespace", "test"),))


def envelope(timestamp: Timestamp | None) -> Envelope:
    return Envelope(namespace="ns", topic="/a/b", event=AnyMessage(type_url="t", value=b"1"), timestamp=timestamp)


@pytest.mark.parametrize("timestamp", [None, Timestamp(), Timestamp(seconds=7, nanos=8), Timestamp(seconds=-5)])
async def test_an_event_without_a_time_is_forwarded_with_that_of_the_epoch(timestamp: Timestamp | None) -> None:
    """Subscribers get a time in any case."""
    exchange = LocalExchange()
    async with exchange.subscribe() as events:
        await Events(exchange).forward(pb.ForwardRequest(envelope=envelope(timestamp)), CALL)
        received = to_proto(await anext(events))
    assert received == envelope(timestamp or Timestamp())
    assert received.HasField("timestamp")


@pytest.mark.parametrize("stamp", [{"seconds": -62135596800}, {"seconds": 1 << 62}, {"nanos": -1}])
async def test_what_is_no_time_is_refused(stamp: dict[str, int]) -> None:
    """Go's zero time says that no time was set; containerd refuses it too."""
    with pytest.raises(InvalidArgument):
        await Events(LocalExchange()).forward(pb.ForwardRequest(envelope=envelope(Timestamp(**stamp))), CALL)
