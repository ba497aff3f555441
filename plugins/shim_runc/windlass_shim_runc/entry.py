"""Where a shim begins: takes its socket from whoever made the process, and serves until it is told to go."""

from __future__ import annotations

from _socket import socket

from windlass import linux
from windlass_shim_runc import disk
from windlass_shim_runc.container import Host
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
    listener = socket(fileno=descriptors[0])
    run(listener, namespace, lambda loop, _reaper: Publisher(loop, ttrpc_address, namespace))
    return 0


def prepare_process() -> None:
    """Adopt what the runtime leaves behind, and be a likelier victim of the OOM killer than the daemon."""
    disk.write("/proc/self/comm", b"windlass-shim", 0)
    # Not linux.prctl: its conversions touch 100 KB that would stay shared.
    if linux.libc().prctl(linux.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError("cannot become a subreaper; containers would be lost")
    score = int(disk.read("/proc/self/oom_score_adj"))
    disk.write("/proc/self/oom_score_adj", b"%d" % min(score + 1, MAX_OOM_SCORE), 0)


def run(listener: socket, namespace: str, make_publisher: Callable[[Loop, Reaper], Publisher]) -> None:
    """Serve until Shutdown, or until nobody needs this shim."""
    loop = Loop()
    reaper = Reaper(loop)
    publisher = make_publisher(loop, reaper)

    async def leave_when_idle() -> None:
        await loop.sleep(IDLE_LIMIT)
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
        Host(loop, reaper, publisher, namespace),
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
    loop.run()


def void(_: object) -> None:
    """Drop a value."""
