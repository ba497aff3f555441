"""Where a shim begins: takes its socket from whoever made the process, and serves until it is told to go."""

from __future__ import annotations

import marshal
import os
import sys
from _socket import socket

from windlass_linux import calls as linux
from windlass_shim_runc import disk
from windlass_shim_runc.host import Host
from windlass_shim_runc.keeper import Line, Luggage, keep
from windlass_shim_runc.log import use_fifo
from windlass_shim_runc.loop import Loop
from windlass_shim_runc.publisher import Publisher
from windlass_shim_runc.reaper import Reaper
from windlass_shim_runc.sandbox import ALL_METHODS, ALL_SERVICES, SandboxTaskService
from windlass_shim_runc.server import Server
from windlass_shim_runc.signals import SIG_IGN, SIGHUP, SIGINT, SIGTERM, handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IDLE_LIMIT = 30.0
"""A shim without container and connection was forgotten by its daemon and ends after this many seconds."""

DRAIN_LIMIT = 5.0

MAX_OOM_SCORE = 1000


def serve(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Be a shim. The arguments are those of `windlass.contracts.shims.ForkedShim`; the daemon owns the socket file."""
    bundle, namespace, _id, _grpc_address, ttrpc_address, _level = arguments
    use_fifo(bundle)
    prepare_process()
    listener = descriptors[0]

    def work(line: Line) -> None:
        disk.write("/proc/self/comm", b"windlass-serves", 0)
        run(socket(fileno=listener), namespace, lambda loop, _reaper: Publisher(loop, ttrpc_address, namespace), line)

    return keep(listener, work)


def prepare_process() -> None:
    """Adopt what the runtime leaves behind, and be a likelier victim of the OOM killer than the daemon."""
    disk.write("/proc/self/comm", b"windlass-shim", 0)
    # Not linux.prctl: its conversions touch 100 KB that would stay shared.
    if linux.libc().prctl(linux.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError("cannot become a subreaper; containers would be lost")
    score = int(disk.read("/proc/self/oom_score_adj"))
    disk.write("/proc/self/oom_score_adj", b"%d" % min(score + 1, MAX_OOM_SCORE), 0)


def run(
    listener: socket, namespace: str, make_publisher: Callable[[Loop, Reaper], Publisher], line: Line | None = None
) -> None:
    """Serve until Shutdown, until nobody needs this shim, or, with a line to a keeper, until all rests."""
    loop = Loop()
    reaper = Reaper(loop, line)
    Serving(loop, reaper, make_publisher(loop, reaper), listener, namespace, line).run()


class Serving:
    """All the parts of a shim that serves."""

    def __init__(
        self, loop: Loop, reaper: Reaper, publisher: Publisher, listener: socket, namespace: str, line: Line | None
    ) -> None:
        self._loop = loop
        self._reaper = reaper
        self._publisher = publisher
        self._service = SandboxTaskService(
            Host(loop, reaper, publisher, namespace, os.getppid() if line else os.getpid()),
            on_vacant=lambda: void(loop.spawn(self._end_when_idle())),
            on_shutdown=lambda: void(loop.spawn(self._end())),
        )
        self._server = Server(loop, listener, ALL_SERVICES, ALL_METHODS, self._service)
        self._line = line
        if line is not None:
            loop.may_rest, loop.quiet = lambda: self._service.may_rest, line.quiet
            self._take_over(line.luggage)

    def run(self) -> None:
        """Serve until the shim's end, or until all rests and is left with the keeper."""
        loop = self._loop
        handle(SIGTERM, self._on_terminate)
        handle(SIGINT, self._on_terminate)
        handle(SIGHUP, SIG_IGN)
        self._reaper.start()
        loop.spawn(self._server.run())
        loop.spawn(self._publisher.run())
        loop.spawn(self._end_when_idle())
        while loop.run():
            try:
                self._leave()
                break
            except Exception:  # noqa: BLE001 -- by a defect here its shim must not end: this worker goes on, for ever
                sys.excepthook(*sys.exc_info())
                loop.may_rest = None

    def _leave(self) -> None:
        """Leave all that is known and open, at a moment when all tasks rest."""
        assert self._line is not None
        self._publisher.disconnect()
        luggage = Luggage()
        luggage.state = marshal.dumps((self._server.leave(luggage), self._service.leave(luggage)))
        luggage.pids = list(self._reaper.pids)
        self._line.leave(luggage)

    def _take_over(self, luggage: Luggage) -> None:
        """Go on with what the worker before has left, if there was one."""
        if not luggage.state:
            return
        connections, containers = marshal.loads(luggage.state)  # noqa: S302 -- from a worker of ours
        self._service.take_over(luggage, containers)
        self._server.take_over(luggage, connections)

    async def _end_when_idle(self) -> None:
        await self._loop.sleep(IDLE_LIMIT, rests=True)
        if not self._service.vacant:
            return
        if self._server.connections or not self._publisher.empty.is_set:
            self._loop.spawn(self._end_when_idle())
        else:
            self._loop.stop()

    async def _end(self) -> None:
        try:
            await self._publisher.empty.wait(DRAIN_LIMIT)
        except TimeoutError:
            pass
        self._loop.stop()

    def _on_terminate(self, _number: int, _frame: object) -> None:
        # A service manager that stops the daemon signals its whole group: containers must not notice.
        if self._service.vacant:
            self._loop.stop()


def void(_: object) -> None:
    """Drop a value."""
