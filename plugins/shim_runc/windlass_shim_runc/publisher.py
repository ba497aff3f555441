"""Delivers events to the daemon, in order, however long the daemon is away.

Only what the daemon has acknowledged leaves the queue; one whose answer was
lost may arrive twice. When the queue is full, the oldest event that no client's
state depends on goes first: exits and deletes stay.
"""

from __future__ import annotations

import time
from _socket import AF_UNIX, SOCK_STREAM, socket

from windlass.errors import Code
from windlass_api.ttrpc import framing as ttrpc
from windlass_shim_runc.log import log
from windlass_shim_runc.loop import Flag, Loop
from windlass_shim_runc.messages import Envelope, ForwardRequest, Message, pack, timestamp

SERVICE = "containerd.services.events.ttrpc.v1.Events"
NAMESPACE_KEY = "containerd-namespace-ttrpc"

MAX_QUEUE = 2048
ANSWER_TIMEOUT = 5.0
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0

KEPT = ("/tasks/exit", "/tasks/delete")

HOPELESS = (Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED, Code.PERMISSION_DENIED, Code.UNAUTHENTICATED)
"""Answers that say the event itself is wrong: sending it again would only hold up the others."""


class Publisher:
    """A queue of events and the connection that empties it."""

    def __init__(self, loop: Loop, address: str, namespace: str) -> None:
        self.empty = Flag(loop)
        self.empty.set()
        self._loop = loop
        self._path = address.removeprefix("unix://")
        self._namespace = namespace
        self._queue: list[tuple[str, bytes]] = []
        self._more = Flag(loop)
        self._socket: socket | None = None
        self._decoder = ttrpc.FrameDecoder()
        self._stream = 1

    def publish(self, topic: str, event: Message) -> None:
        """Queue an event; its time is now."""
        envelope = Envelope(
            timestamp=timestamp(time.time_ns()), namespace=self._namespace, topic=topic, event=pack(event)
        )
        self._queue.append((topic, ForwardRequest(envelope=envelope).encode()))
        if len(self._queue) > MAX_QUEUE:
            self._drop()
        if self.empty.is_set:
            self.empty = Flag(self._loop)
        self._more.set()

    def _drop(self) -> None:
        # The first may be on its way already.
        for index in range(1, len(self._queue)):
            if self._queue[index][0] not in KEPT:
                log(f"event queue is full, {self._queue.pop(index)[0]} is dropped")
                return

    async def run(self) -> None:
        """Deliver events for ever."""
        pause = FIRST_PAUSE
        while True:
            while not self._queue:
                self.empty.set()
                self._more = Flag(self._loop)
                await self._more.rest()
            topic, event = self._queue[0]
            try:
                response = await self._forward(event)
            except (OSError, ttrpc.Malformed):
                # TimeoutError is an OSError too.
                self.disconnect()
                response = ttrpc.Response(Code.UNAVAILABLE)
            if response.code in HOPELESS:
                log(f"event {topic} was refused and is dropped: {response.message}")
            elif response.code:
                await self._loop.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            self._queue.pop(0)
            pause = FIRST_PAUSE

    async def _forward(self, event: bytes) -> ttrpc.Response:
        sock = self._connected()
        stream, self._stream = self._stream, self._stream + 2
        metadata = {NAMESPACE_KEY: (self._namespace,)}
        request = ttrpc.Request(SERVICE, "Forward", event, int(ANSWER_TIMEOUT * 1e9), metadata)
        unsent = memoryview(ttrpc.pack_frame(stream, ttrpc.REQUEST, 0, ttrpc.encode_request(request)))
        while unsent:
            try:
                unsent = unsent[sock.send(unsent) :]
            except BlockingIOError:
                await self._loop.writable(sock.fileno(), ANSWER_TIMEOUT)
        while True:
            await self._loop.readable(sock.fileno(), ANSWER_TIMEOUT)
            data = sock.recv(4096)
            if not data:
                raise ConnectionResetError("the daemon closed the connection")
            for frame in self._decoder.feed(data):
                if frame.stream == stream and frame.type == ttrpc.RESPONSE:
                    return ttrpc.decode_response(frame.data)

    def disconnect(self) -> None:
        """Close the connection; the next event makes another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket:
        if self._socket is None:
            sock = socket(AF_UNIX, SOCK_STREAM)
            sock.setblocking(False)
            try:
                sock.connect(self._path)
            except OSError:
                sock.close()
                raise
            self._socket, self._decoder, self._stream = sock, ttrpc.FrameDecoder(), 1
        return self._socket
