"""Stops containers and signals them; one that a client stops stays stopped, whatever its restart policy."""

from __future__ import annotations

import asyncio
import re
import signal
from typing import TYPE_CHECKING

from windlass.errors import Error, FailedPrecondition, InvalidArgument, NotFound
from windlass_client.lifecycle import asked as askings
from windlass_client.lifecycle import restarts
from windlass_client.lifecycle.asked import Asked
from windlass_client.namespace import ClientNamespace, from_message
from windlass_local import tasks as local

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client

KILL_TIMEOUT = 10.0
STATES_THAT_RUN = (2, 4, 5)


def signal_number(name: str) -> int:
    """Return the number of a signal: 9, KILL, SIGKILL, RTMIN+3. Raises InvalidArgument."""
    if re.fullmatch(r"[0-9]{1,3}", name) and 0 < int(name) <= signal.SIGRTMAX:
        return int(name)
    word, plus, more = name.upper().removeprefix("SIG").partition("+")
    try:
        found = signal.Signals[f"SIG{word}"].value + (int(more) if plus else 0)
    except (KeyError, ValueError):
        found = 0
    if not 0 < found <= signal.SIGRTMAX:
        raise InvalidArgument(f"{name[:40]!r} is not a signal of Linux")
    return found


def stop_signal(asked: Asked) -> int:
    """Return the signal that ends a container; an image may name one that does not exist, and docker sends SIGTERM."""
    try:
        return signal_number(asked.stop.signal)
    except InvalidArgument:
        return signal.SIGTERM


async def stop(client: Client, container: Container, timeout: float | None = None, name: str = "") -> None:
    """Ask a container's first process to end, and kill it when it has not after ``timeout`` seconds; -1 waits on."""
    from windlass_client.networks import cleanup

    asked = askings.of(from_message(container))
    watched = restarts.STATUS in container.labels
    if watched:
        await client.containers.label(container.id, restarts.held())
    seconds = timeout if timeout is not None else asked.stop.timeout
    seconds = askings.TIMEOUT if seconds is None else seconds
    try:
        await _end(client, container.id, signal_number(name) if name else stop_signal(asked), seconds)
        # Its task stays, and with it what its hook would detach: ports and addresses are to be free.
        await cleanup.detach(client, container.id)
    finally:
        if watched:
            await client.containers.label(container.id, restarts.stopped())


async def _end(client: Client, id: str, number: int, seconds: float) -> None:
    namespace = ClientNamespace(client)
    if not await runs(client, id):
        return
    waiting = asyncio.ensure_future(namespace.tasks.wait(id))
    try:
        await _signal(client, id, number)
        await asyncio.wait([waiting], timeout=None if seconds < 0 else seconds)
        if not waiting.done():
            await local.kill(namespace.tasks, id, KILL_TIMEOUT)
            await asyncio.wait([waiting], timeout=KILL_TIMEOUT)
        if not waiting.done():
            raise FailedPrecondition(f"container {id} does not end, though it was killed; look at its processes")
        waiting.result()
    except NotFound:
        pass  # another client has deleted the task
    finally:
        waiting.cancel()


async def _signal(client: Client, id: str, number: int) -> None:
    try:
        await client.tasks.kill(id, number)
    except (NotFound, FailedPrecondition):
        return  # it has just ended
    try:
        task = await client.tasks.get(id)
        if task.status in STATES_THAT_RUN[1:]:
            # Frozen processes act on a signal when they thaw.
            await client.tasks.resume(id)
    except Error:
        pass


async def runs(client: Client, id: str) -> bool:
    """Return whether a container has a task that has not ended."""
    try:
        task = await client.tasks.get(id)
    except NotFound:
        return False
    return task.status in STATES_THAT_RUN


async def kill(client: Client, container: Container, number: int, exec_id: str = "", everybody: bool = False) -> None:
    """Send a signal. Raises FailedPrecondition if the container does not run."""
    if not exec_id and not await runs(client, container.id):
        raise FailedPrecondition(f"container {container.id} is not running; `windlass start {container.id}` starts it")
    if restarts.STATUS in container.labels and not exec_id and number == signal.SIGKILL:
        await client.containers.label(container.id, restarts.held())
    await client.tasks.kill(container.id, number, exec_id, everybody)
