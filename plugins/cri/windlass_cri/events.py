"""What happens to pods and containers, for clients that want to know (docs/containerd 5.4, GetContainerEvents)."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from windlass.errors import ResourceExhausted
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.record import Container, Pod

KEPT = 300.0
"""Seconds that an event is kept for those who come later."""
MOST = 10_000
"""Events that are kept, and that a client may be behind."""


class Events:
    """The events of the last minutes, and who wants further ones; used on the loop."""

    def __init__(self) -> None:
        """Have none; `describe` is set by who knows pods and containers."""
        self._kept: deque[tuple[float, cri.ContainerEventResponse]] = deque(maxlen=MOST)
        self._subscribers: set[asyncio.Queue[cri.ContainerEventResponse]] = set()
        self.describe: Callable[[str], tuple[cri.PodSandboxStatus | None, Sequence[cri.ContainerStatus]]] = _nothing

    def pod(self, pod: Pod, *kinds: cri.ContainerEventType.ValueType) -> None:
        """Tell of a pod."""
        for kind in kinds:
            self._publish(pod.id, kind, pod.id)

    def container(self, container: Container, kind: cri.ContainerEventType.ValueType) -> None:
        """Tell of a container."""
        self._publish(container.id, kind, container.data.pod)

    def _publish(self, id: str, kind: cri.ContainerEventType.ValueType, pod: str) -> None:
        event = cri.ContainerEventResponse(container_id=id, container_event_type=kind, created_at=time.time_ns())
        status, containers = self.describe(pod)
        if status is not None:
            event.pod_sandbox_status.CopyFrom(status)
        event.containers_statuses.extend(containers)
        now = time.monotonic()
        while self._kept and self._kept[0][0] < now - KEPT:
            self._kept.popleft()
        self._kept.append((now, event))
        for queue in self._subscribers:
            if queue.qsize() < MOST:
                queue.put_nowait(event)

    async def subscribe(self) -> AsyncIterator[cri.ContainerEventResponse]:
        """Yield what was lately, and what comes. Raises ResourceExhausted for a client that is far behind."""
        queue: asyncio.Queue[cri.ContainerEventResponse] = asyncio.Queue()
        for _, event in self._kept:
            queue.put_nowait(event)
        self._subscribers.add(queue)
        try:
            while True:
                if queue.qsize() >= MOST:
                    raise ResourceExhausted(f"the client is {MOST} events behind")
                yield await queue.get()
        finally:
            self._subscribers.discard(queue)


def _nothing(pod: str) -> tuple[cri.PodSandboxStatus | None, Sequence[cri.ContainerStatus]]:
    return None, ()
