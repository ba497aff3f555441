"""What has been done to a daemon under strain, what it has told, and what has been found wrong with it.

The workers know what they have been told. A container whose start was answered,
and whose shim nobody killed, must be RUNNING with the same pid however often
the daemon dies; one whose shim was killed has ended, and its exit is told; all
can be deleted within `PATIENCE`. What is not so is a violation, a line of text.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from compat.machines import Machine
from google.protobuf.any_pb2 import Any as AnyMessage

from windlass.errors import Error
from windlass_api.containerd.events import task_pb2 as events_pb
from windlass_api.containerd.services.events.v1.events_pb2 import PublishRequest
from windlass_api.containerd.services.events.v1.events_pb2_grpc import EventsStub
from windlass_client.client import Client

PATIENCE = 60.0
"""Longest that a container may resist its deletion, and a daemon's successor may take to answer."""

EXIT, READY = "/tasks/exit", "/strain/ready"


class Felt(Exception):
    """A step that was spoilt, by a kill or by a violation that has been noted."""


class Refused(Exception):
    """`ctr` has failed."""


@dataclass
class Strain:
    """One run: a machine, and what has been done to it, told of it, and found wrong with it."""

    machine: Machine
    image: str
    violations: list[str] = field(default_factory=list)
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    excuses: collections.Counter[str] = field(default_factory=collections.Counter)
    """Errors that kills explain, names left out."""
    condemned: set[str] = field(default_factory=set)
    """Containers, and pods, whose shim has been, or is just being, killed."""
    standing: dict[str, int] = field(default_factory=dict)
    """Pids by the IDs of containers whose shims are spared, and so must run all the time."""
    told: dict[str, int] = field(default_factory=dict)
    """Exit status by container, from the exit events that were heard."""
    life: int = 1
    """Odd while the daemon is there and listened to; a daemon's death makes it even."""

    settled: float = 0.0
    """Seconds after the last deletion until nothing was left."""

    def violate(self, what: str) -> None:
        """Note what must not be."""
        self.violations.append(f"{time.strftime('%H:%M:%S')} {what}")

    def excuse(self, id: str, step: str, error: BaseException) -> None:
        """Note an error that a kill explains."""
        text = re.sub(r"/\S+|\b[0-9a-f]{8,}\b", "…", str(error).replace(id, "ID"))
        whom = "its shim" if self.is_condemned(id) else "the daemon"
        self.excuses[f"{whom}: {step}: {type(error).__name__}: {text}"] += 1

    def excused(self, id: str, life: int) -> bool:
        """Tell whether a step that began in ``life`` may have been spoilt by a kill."""
        return self.is_condemned(id) or life != self.life or not life % 2

    def is_condemned(self, id: str) -> bool:
        """Tell whether the shim of a container, or of its pod, has been killed."""
        return pod_of(id) in self.condemned


async def listen(strain: Strain, client: Client, ready: asyncio.Event) -> None:
    """Note the exits that are told, for ever; ``ready`` is set whenever the daemon's events begin to arrive."""
    while True:
        asking = asyncio.ensure_future(_ask_for_sign(client))
        try:
            async for envelope in client.events.subscribe():
                if envelope.topic == READY:
                    asking.cancel()
                    ready.set()
                elif envelope.topic == EXIT:
                    event = events_pb.TaskExit.FromString(envelope.event.value)
                    if event.id == event.container_id:
                        strain.told.setdefault(event.id, event.exit_status)
        except Error:
            await asyncio.sleep(0.05)
        finally:
            asking.cancel()


async def _ask_for_sign(client: Client) -> None:
    """Publish an event until somebody has heard it."""
    connection = client.connection
    request = PublishRequest(topic=READY, event=AnyMessage(type_url="strain.Ready"))
    while True:
        with contextlib.suppress(Error):
            await connection.call(EventsStub(connection.channel).Publish, request)
        await asyncio.sleep(0.02)


def pod_of(id: str) -> str:
    """Return the pod of a container, which is what its ID has before the dot; of one without, its own ID."""
    return id.partition(".")[0]


@contextlib.asynccontextmanager
async def connected(strain: Strain) -> AsyncIterator[tuple[Client, asyncio.Event]]:
    """Yield a client, and an event that is set when the daemon's events arrive through it, which they do now."""
    ready = asyncio.Event()
    async with Client(strain.machine.address, strain.machine.namespace) as client:
        listening = asyncio.ensure_future(listen(strain, client, ready))
        try:
            await asyncio.wait_for(ready.wait(), PATIENCE)
            yield client, ready
        finally:
            listening.cancel()
            await asyncio.wait({listening})
