"""An OCI runtime in the test's own process, and a shim's parts around it: no program, no root, no daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from windlass.errors import Error, NotFound
from windlass_shim_runc import messages
from windlass_shim_runc.loop import Flag, Loop
from windlass_shim_runc.messages import AnyMessage, CheckpointTaskRequest
from windlass_shim_runc.oci import Runtime
from windlass_shim_runc.oom import MemoryWatch
from windlass_shim_runc.publisher import Publisher
from windlass_shim_runc.reaper import Reaper
from windlass_shim_runc.shim import Shim


class ForkingRuntime(Runtime):
    """Makes each process by a fork, which waits until it is killed; the spec of an exec is the status it exits with."""

    def __init__(self, shim: Shim, id: str, bundle: str, options: messages.Options) -> None:
        self.id = id
        self.calls: list[str] = []
        self.fails: set[str] = set()
        self.pids_alive: list[int] = []

    def _do(self, call: str) -> None:
        self.calls.append(call)
        if call in self.fails:
            raise Error(f"OCI runtime {call} failed: as the test wants it")

    def _fork(self, stdio: Mapping[int, int], status: int | None) -> int:
        pid = os.fork()
        if not pid:
            try:
                for number, fd in stdio.items():
                    os.dup2(fd, number)
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                while status is None:
                    signal.pause()
                os.write(1, b"said")
            finally:
                os._exit(status or 0)
        self.pids_alive.append(pid)
        return pid

    async def create(self, stdio: Mapping[int, int], console: str) -> int:
        self._do("create")
        return self._fork(stdio, None)

    async def restore(self, stdio: Mapping[int, int], console: str, checkpoint: str) -> int:
        self._do("restore")
        return self._fork(stdio, None)

    async def start(self, exited: Flag) -> None:
        self._do("start")

    async def exec(self, exec_id: str, spec: bytes, stdio: Mapping[int, int], console: str) -> int:
        self._do("exec")
        return self._fork(stdio, int(spec) if spec.isdigit() else None)

    async def kill(self, number: int, all: bool) -> None:
        self._do("kill")
        if not self.pids_alive:
            raise NotFound(f"process of container {self.id} has finished already")
        for pid in self.pids_alive:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    async def pause(self) -> None:
        self._do("pause")

    async def resume(self) -> None:
        self._do("resume")

    async def update(self, resources: bytes) -> None:
        self._do(f"update {resources.decode()}")

    async def checkpoint(self, request: CheckpointTaskRequest) -> str:
        self._do("checkpoint")
        return request.path

    async def delete(self) -> None:
        self._do("delete")

    async def abandon(self) -> None:
        self._do("abandon")

    def forget(self) -> bool:
        self.calls.append("forget")
        return "forget" not in self.fails

    def pids(self, init: int) -> list[int]:
        return list(self.pids_alive)

    def metrics(self, init: int) -> AnyMessage:
        return AnyMessage(type_url="test/Metrics", value=b"%d" % init)

    def watch_memory(self, init: int, on_oom: Callable[[], None]) -> MemoryWatch | None:
        if "watch_memory" in self.fails:
            raise OSError("fs.inotify.max_user_instances is reached")
        return None


class Parts:
    """A shim's loop, reaper and publisher, whose events stay in its queue."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.reaper = Reaper(self.loop)
        self.publisher = Publisher(self.loop, "/nowhere", "ns")
        self.shim = Shim(self.loop, self.reaper, self.publisher, "ns", os.getpid())

    @property
    def topics(self) -> list[str]:
        """The events so far, without their prefix."""
        return [topic.removeprefix("/tasks/") for topic, _ in self.publisher._queue]

    # Any: what a coroutine yields to and gets from the loop.
    def run(self, work: Coroutine[Any, Any, None], seconds: float = 20.0) -> None:
        """Run a coroutine to its end, and raise what it raises."""
        raised: list[BaseException] = []

        async def all_of_it() -> None:
            try:
                self.loop.limit(seconds)
                await work
            except BaseException as error:
                raised.append(error)
            finally:
                self.loop.stop()

        self.loop._stopped = False
        self.loop.spawn(all_of_it())
        self.loop.run()
        if raised:
            raise raised[0]


@contextmanager
def parts() -> Iterator[Parts]:
    """Yield a shim's parts; signals are as they were afterwards."""
    before = signal.getsignal(signal.SIGCHLD)
    made = Parts()
    made.reaper.start()
    try:
        yield made
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, before)
        for task, _ in made.loop._ready:
            task.coroutine.close()
        made.loop.close()
