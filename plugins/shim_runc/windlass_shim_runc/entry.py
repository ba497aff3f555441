"""Where a shim begins: takes its socket from whoever made the process, and serves until it is told to go."""

from __future__ import annotations

import marshal
import os
import sys
from _socket import socket

from windlass import linux
from windlass_shim_runc import disk
from windlass_shim_runc.container import Host
from windlass_shim_runc.keeper import Keeper, Line, Luggage
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
    """Be a shim; the arguments are those of `windlass.shims.ForkedShim`. The daemon owns the socket's file."""
    _bundle, namespace, _id, _grpc_address, ttrpc_address, _level = arguments
    prepare_process()
    listener = descriptors[0]

    def work(line: Line) -> Luggage | None:
        disk.write("/proc/self/comm", b"windlass-serves", 0)
        return run(
            socket(fileno=listener), namespace, lambda loop, _reaper: Publisher(loop, ttrpc_address, namespace), line
        )

    return Keeper(listener, work).run()


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
) -> Luggage | None:
    """Serve until Shutdown, until nobody needs this shim, or, with a keeper, until all rests: then what is left."""
    loop = Loop()
    reaper = Reaper(loop, line)
    publisher = make_publisher(loop, reaper)

    async def leave_when_idle() -> None:
        await loop.sleep(IDLE_LIMIT, rests=True)
        if not service.vacant:
            return
        if server.connections or not publisher.empty.is_set:
            loop.spawn(leave_when_idle())
        else:
            loop.stop()

    async def leave() -> None:
        try:
            await publisher.empty.wait(DRAIN_LIMIT)
        except TimeoutError:
            pass
        loop.stop()

    def on_terminate(_number: int, _frame: object) -> None:
        # A service manager that stops the daemon signals its whole group: containers must not notice.
        if service.vacant:
            loop.stop()

    service = SandboxTaskService(
        Host(loop, reaper, publisher, namespace, os.getppid() if line else os.getpid()),
        on_vacant=lambda: void(loop.spawn(leave_when_idle())),
        on_shutdown=lambda: void(loop.spawn(leave())),
    )
    server = Server(loop, listener, ALL_SERVICES, ALL_METHODS, service)
    handle(SIGTERM, on_terminate)
    handle(SIGINT, on_terminate)
    handle(SIGHUP, SIG_IGN)
    reaper.start()
    loop.spawn(server.run())
    loop.spawn(publisher.run())
    loop.spawn(leave_when_idle())
    if line is not None:
        loop.may_rest = lambda: service.may_rest
        take_over(line.luggage, server, service)
    while loop.run():
        try:
            publisher.disconnect()
            return packed(server, service, reaper)
        except Exception:  # noqa: BLE001 -- by a defect here its shim must not end: this worker goes on, for ever
            sys.excepthook(*sys.exc_info())
            loop.may_rest = None
    return None


def packed(server: Server, service: SandboxTaskService, reaper: Reaper) -> Luggage:
    """Return all that is known and open, at a moment when all tasks rest."""
    luggage = Luggage()
    luggage.state = marshal.dumps((server.leave(luggage), service.leave(luggage)))
    luggage.pids = list(reaper.pids)
    return luggage


def take_over(luggage: Luggage, server: Server, service: SandboxTaskService) -> None:
    """Go on with what the worker before has left, if there was one."""
    if not luggage.state:
        return
    connections, containers = marshal.loads(luggage.state)  # noqa: S302 -- from a worker of ours
    service.take_over(luggage, containers)
    server.take_over(luggage, connections)


def void(_: object) -> None:
    """Drop a value."""
