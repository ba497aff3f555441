"""One task: its bundle, its shim, and what the daemon remembers of its processes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import Message

from windlass import tracing
from windlass.contracts.tasks import Exit
from windlass.errors import DeadlineExceeded, Error, Unavailable
from windlass_api.containerd.task.v3 import shim_pb2 as pb
from windlass_runtime_v2.bundle import Bundle
from windlass_runtime_v2.shared import Shared
from windlass_runtime_v2.shim import Shim
from windlass_runtime_v2.wire import exit_of

M = TypeVar("M", bound=Message)
R = TypeVar("R")

EVENTS = {
    "Start": "/tasks/start",
    "Exec": "/tasks/exec-added",
    "Kill": "/tasks/exit",
    "Pause": "/tasks/paused",
    "Resume": "/tasks/resumed",
    "Checkpoint": "/tasks/checkpointed",
    "Delete": "/tasks/delete",
}
"""Calls of a shim, and the topics of the events that they lead to."""
UNKNOWN_EXIT = 255
"""Status of a process whose end was not seen."""


class Task:
    """A task that its shim has created."""

    def __init__(self, bundle: Bundle, shim: Shim) -> None:
        """Take over ``shim``."""
        self.bundle = bundle
        self.shim = shim
        self.pids: dict[str, int] = {}
        self.deleted = False
        """Whether the task is on its way out, so that its shim's end is expected."""
        self.has_active_mounts = True
        """Whether the mount manager may have made mounts for it; not known of a task of an earlier daemon, so True."""
        self.found: pb.StateResponse | None = None
        """What the shim said of a task of an earlier daemon when this one found it."""
        self.deletion: Shared[Exit] | None = None
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        """Done when the task has been deleted, or its shim has died and all has been cleaned up."""
        self.end = Shared(self.ended)
        self._waits: dict[str, Shared[Exit]] = {}

    @property
    def id(self) -> str:
        """The container's ID."""
        return self.bundle.id

    async def call(self, method: str, request: Message, answer: type[M], timeout: float | None) -> M:
        """Call the shim; the errors that are not its answers name task and step."""
        if tracing.active and method in EVENTS:
            subject = f"{self.bundle.namespace}/{self.id}"
            tracing.touch(subject)
            tracing.touch(subject + EVENTS[method])
        try:
            return await self.shim.call(method, request, answer, timeout)
        except (DeadlineExceeded, Unavailable) as error:
            raise type(error)(f"task {self.id}: {method}: {error}") from error

    async def wait(self, exec_id: str) -> Exit:
        """Return how a process ended.

        However many wait, and however often, the shim is asked once: there is no call
        that takes a `Wait` back.
        """
        wait = self._waits.get(exec_id)
        if wait is None:
            job = asyncio.create_task(self._wait(exec_id))
            wait = self._waits[exec_id] = Shared(job)
            job.add_done_callback(lambda job: self._forget_failed(exec_id, job))
            del job
        try:
            return await wait.result()
        finally:
            del wait  # an error's traceback has this frame, and the job has the error

    def known_exit(self, exec_id: str = "") -> Exit | None:
        """Return how a process ended, if a client has waited for it."""
        wait = self._waits.get(exec_id)
        if wait is None or not wait.job.done() or wait.failed:
            return None
        return wait.job.result()

    def forget(self, exec_id: str) -> None:
        """Forget an exec that has been deleted; its ID may be used again."""
        self._waits.pop(exec_id, None)
        self.pids.pop(exec_id, None)

    def settle(self, exit: Exit) -> None:
        """Answer everyone who waits for the end of the task."""
        if not self.ended.done():
            self.ended.set_result(exit)

    def close(self) -> None:
        """Wait for nothing any more."""
        for wait in self._waits.values():
            wait.job.cancel()

    async def _wait(self, exec_id: str) -> Exit:
        try:
            answer = await self.call("Wait", pb.WaitRequest(id=self.id, exec_id=exec_id), pb.WaitResponse, None)
        except Unavailable:
            if not self.shim.gone.done():
                raise
            exit = await self.end.result()
            return Exit(self.pids[exec_id], UNKNOWN_EXIT, exit.at) if exec_id in self.pids and exec_id else exit
        return exit_of(answer, self.pids.get(exec_id, 0))

    def _forget_failed(self, exec_id: str, job: asyncio.Task[Exit]) -> None:
        wait = self._waits.get(exec_id)
        if (job.cancelled() or job.exception() is not None) and wait is not None and wait.job is job:
            del self._waits[exec_id]


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # proc(5): the name, which may hold anything, ends at the last parenthesis; then comes the state.
    return stat[stat.rfind(b")") + 2 :][:1] not in (b"Z", b"X")


def now() -> int:
    """Return nanoseconds since the epoch."""
    return time.time_ns()


class Jobs:
    """Work that is done whether or not the client that asked for it is still there."""

    def __init__(self) -> None:
        """Begin without work."""
        self._jobs: set[asyncio.Task[object]] = set()

    def start(self, work: Coroutine[object, object, R]) -> asyncio.Task[R]:
        """Begin ``work``; its failure is for the caller that waits for it."""
        job = asyncio.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._done)
        return job

    def _done(self, job: asyncio.Task[object]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None and not isinstance(error, Error):
            job.get_loop().call_exception_handler({"message": "a task's job failed", "exception": error, "task": job})

    async def finish(self, timeout: float) -> None:
        """Wait for all work, and after ``timeout`` seconds cancel what is left."""
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=timeout)
        for job in tuple(self._jobs):
            job.cancel()
            with contextlib.suppress(asyncio.CancelledError, Error):
                await job
