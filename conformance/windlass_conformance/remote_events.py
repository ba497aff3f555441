"""A daemon's events, through its API, as the suite sees them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc

from windlass.contracts.events import Envelope
from windlass.contracts.values import Payload
from windlass.errors import Error
from windlass_api.containerd.services.events.v1 import events_pb2
from windlass_api.containerd.services.events.v1.events_pb2_grpc import EventsStub
from windlass_api.containerd.types.event_pb2 import Envelope as Message
from windlass_remote.messages import any_of, from_timestamp, to_timestamp
from windlass_remote.peer import Peer

READY = "/conformance/ready"


class RemoteExchange:
    """A `windlass.contracts.events.Exchange`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub = EventsStub(peer.channel)

    def publish(self, namespace: str, topic: str, event: Payload) -> None:
        """Publish an event."""
        request = events_pb2.PublishRequest(topic=topic, event=any_of(event))
        self._peer.call(self._stub.Publish, request, 0, namespace)

    def forward(self, envelope: Envelope) -> None:
        """Publish an event that has its time."""
        message = Message(
            timestamp=to_timestamp(envelope.timestamp),
            namespace=envelope.namespace,
            topic=envelope.topic,
            event=any_of(envelope.event),
        )
        self._peer.call(self._stub.Forward, events_pb2.ForwardRequest(envelope=message))

    @asynccontextmanager
    async def subscribe(self, filters: Sequence[str] = ()) -> AsyncIterator[AsyncIterator[Envelope]]:
        """Subscribe; events that say that it has begun are added to the filters, and left out."""
        wanted = [*filters, f'topic=="{READY}"'] if filters else []
        queue: asyncio.Queue[Envelope | Error] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        begun = threading.Event()
        call = self._stub.Subscribe(events_pb2.SubscribeRequest(filters=wanted))

        def receive() -> None:
            try:
                for message in call:
                    if message.topic == READY:
                        begun.set()
                    else:
                        loop.call_soon_threadsafe(queue.put_nowait, _envelope(message))
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.CANCELLED:
                    loop.call_soon_threadsafe(queue.put_nowait, self._peer.error(error))
            finally:
                begun.set()

        thread = threading.Thread(target=receive)
        thread.start()
        try:
            # Without an answer a subscription may have begun or not; its first event shows that it has.
            while not begun.is_set():
                await asyncio.to_thread(self.publish, "conformance", READY, Payload("conformance.Ready", b""))
                await asyncio.to_thread(begun.wait, 0.05)
            yield _each(queue)
        finally:
            call.cancel()
            await asyncio.to_thread(thread.join)


async def _each(queue: asyncio.Queue[Envelope | Error]) -> AsyncIterator[Envelope]:
    while True:
        found = await queue.get()
        if isinstance(found, Error):
            raise found
        yield found


def _envelope(message: Message) -> Envelope:
    event = Payload(message.event.type_url, message.event.value)
    return Envelope(from_timestamp(message.timestamp), message.namespace, message.topic, event)
