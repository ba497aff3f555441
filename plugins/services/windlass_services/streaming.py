"""The Streaming service: a client's streams, which its other requests refer to by name (docs/containerd 3.18)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from windlass.contracts.rpc import Call
from windlass.contracts.streaming import Streams
from windlass.contracts.values import Payload
from windlass.errors import Cancelled, DeadlineExceeded, InvalidArgument
from windlass_api.containerd.services.streaming.v1.streaming_pb2 import StreamInit
from windlass_remote.messages import any_of

ROOM = 16
"""Messages that wait in each direction; who sends more waits."""
LINGER = 1.0
"""Seconds in which a client may take what is left of a stream that we end."""
OPEN_TIMEOUT = 30.0
"""Seconds in which a client has to say what its stream is called."""


def type_of(message: AnyMessage | Payload) -> str:
    """Return the bare name of a message's type."""
    return message.type_url.rpartition("/")[2]


def payload(message: Message) -> Payload:
    """Return a message as what goes over a stream."""
    return Payload(message.DESCRIPTOR.full_name, message.SerializeToString())


class _Channel:
    """Messages in one direction: a bounded queue that can end, or break off."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._items: deque[Payload] = deque()
        self._changed = asyncio.Condition()
        self._ended = self._broken = False

    async def put(self, item: Payload) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._items) < ROOM or self._ended)
            self._check()
            if self._ended:
                raise Cancelled(f"stream {self._name} is closed")
            self._items.append(item)
            self._changed.notify_all()

    async def get(self) -> Payload | None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._items or self._ended)
            self._check()
            if not self._items:
                return None
            self._changed.notify_all()
            return self._items.popleft()

    async def end(self, broken: bool = False) -> None:
        async with self._changed:
            self._ended, self._broken = True, self._broken or broken
            self._changed.notify_all()

    async def drained(self) -> None:
        """Return when everything has been taken, or the taker has gone."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._items or self._broken)

    def _check(self) -> None:
        if self._broken:
            raise Cancelled(f"the client of stream {self._name} has gone")


class ClientStream:
    """Implements `windlass.contracts.streaming.Stream` over a call."""

    def __init__(self, name: str) -> None:
        """Be called ``name`` in errors."""
        self.incoming = _Channel(name)
        self.outgoing = _Channel(name)

    async def receive(self) -> Payload | None:
        """Return what the client sent next."""
        return await self.incoming.get()

    async def send(self, message: Payload) -> None:
        """Send something to the client."""
        await self.outgoing.put(message)

    async def close(self) -> None:
        """End the stream, and return once what was sent is on its way, so that no answer overtakes it."""
        await self.outgoing.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                await self.outgoing.drained()

    async def gone(self) -> None:
        """Show the user of the stream that the client has gone."""
        await self.incoming.end(broken=True)
        await self.outgoing.end(broken=True)


class Streaming:
    """``containerd.services.streaming.v1.Streaming``."""

    def __init__(self, streams: Streams) -> None:
        """Give clients' streams to ``streams``."""
        self._streams = streams

    async def stream(self, requests: AsyncIterator[AnyMessage], call: Call) -> AsyncIterator[AnyMessage]:
        """Open a stream, and carry messages until one side ends it."""
        namespace = call.namespace
        name = await _name(requests)
        stream = ClientStream(name)
        await self._streams.add(namespace, name, stream, call.lease)
        feeding = asyncio.create_task(_feed(requests, stream))
        try:
            yield any_of(payload(Empty()))
            while (message := await stream.outgoing.get()) is not None:
                yield any_of(message)
        finally:
            feeding.cancel()
            await stream.gone()
            await self._streams.remove(namespace, name)


async def _name(requests: AsyncIterator[AnyMessage]) -> str:
    try:
        async with asyncio.timeout(OPEN_TIMEOUT):
            first = await anext(requests, None)
    except TimeoutError:
        raise DeadlineExceeded(f"the client did not name its stream within {OPEN_TIMEOUT:g} s") from None
    if first is None or type_of(first) != StreamInit.DESCRIPTOR.full_name:
        raise InvalidArgument(f"the first message of a stream has to be a {StreamInit.DESCRIPTOR.full_name}")
    try:
        return StreamInit.FromString(first.value).id
    except DecodeError as error:
        raise InvalidArgument(f"StreamInit does not parse: {error}") from None


async def _feed(requests: AsyncIterator[AnyMessage], stream: ClientStream) -> None:
    try:
        async for message in requests:
            await stream.incoming.put(Payload(message.type_url, message.value))
    except Cancelled:
        return  # it has no taker any more
    await stream.incoming.end()
