"""Where a shim begins: takes its socket from the process that made it, and serves until it is asked to end.

All modules of ours that a shim uses are imported with this one, in the zygote: a shim runs the version that it was
forked with, also when another one has been installed since.
"""

from __future__ import annotations

import os
import sys
from _socket import socket

from windlass_linux import calls as linux
from windlass_shim_runc import disk, own, records, runc
from windlass_shim_runc.inventory import Inventory
from windlass_shim_runc.keeper import Handover, KeeperLine, keep
from windlass_shim_runc.log import use_fifo
from windlass_shim_runc.loop import Loop
from windlass_shim_runc.publisher import Publisher
from windlass_shim_runc.reaper import Reaper
from windlass_shim_runc.server import Server
from windlass_shim_runc.services import services
from windlass_shim_runc.shim import Shim
from windlass_shim_runc.signals import SIG_IGN, SIGHUP, SIGINT, SIGTERM, handle, release_stop_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IDLE_LIMIT = 30.0
"""A shim without container and connection was forgotten by its daemon and ends after this many seconds."""

DRAIN_LIMIT = 5.0

MAX_OOM_SCORE = 1000


def serve(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Run a shim. The arguments are those of `windlass.contracts.shims.ForkedShim`; the daemon owns the socket file."""
    return _serve(arguments, descriptors, runc.NAME)


def serve_own(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Run a shim whose containers are made by our own OCI runtime."""
    return _serve(arguments, descriptors, own.NAME)


def _serve(arguments: Sequence[str], descriptors: Sequence[int], program: str) -> int:
    bundle, namespace, _id, _grpc_address, ttrpc_address, _level = arguments
    use_fifo(bundle)
    prepare_process()
    listener = descriptors[0]

    def work(line: KeeperLine) -> None:
        disk.write("/proc/self/comm", b"windlass-serves", 0)
        publisher = lambda loop, _reaper: Publisher(loop, ttrpc_address, namespace)  # noqa: E731
        run(socket(fileno=listener), namespace, publisher, line, program)

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
    listener: socket,
    namespace: str,
    make_publisher: Callable[[Loop, Reaper], Publisher],
    line: KeeperLine | None = None,
    program: str = runc.NAME,
) -> None:
    """Serve until Shutdown, until no client needs this shim, or, with a line to a keeper, until all rests."""
    loop = Loop()
    reaper = Reaper(loop, line)
    Serving(loop, reaper, make_publisher(loop, reaper), listener, namespace, line, program).run()


class Serving:
    """All the parts of a shim that serves."""

    def __init__(
        self,
        loop: Loop,
        reaper: Reaper,
        publisher: Publisher,
        listener: socket,
        namespace: str,
        line: KeeperLine | None,
        program: str,
    ) -> None:
        self._loop = loop
        self._reaper = reaper
        self._publisher = publisher
        shim = Shim(loop, reaper, publisher, namespace, os.getppid() if line else os.getpid(), program)
        self._inventory = Inventory(shim, on_vacant=self._on_vacant)
        self._server = Server(loop, listener, services(self._inventory, self._on_shutdown))
        self._line = line
        if line is not None:
            # A shim that holds nothing is about to be used, or to end.
            loop.may_rest, loop.quiet = lambda: not self._inventory.vacant, line.quiet
            self._take_over(line.handover)

    def run(self) -> None:
        """Serve until the shim's end, or until all rests and is left with the keeper."""
        loop = self._loop
        handle(SIGTERM, self._on_terminate)
        handle(SIGINT, self._on_terminate)
        handle(SIGHUP, SIG_IGN)
        self._reaper.start()
        release_stop_signals()
        loop.spawn(self._server.run())
        loop.spawn(self._publisher.run())
        loop.spawn(self._end_when_idle())
        while loop.run():
            try:
                self._hand_over(self._line)
                break
            except Exception:  # noqa: BLE001 -- a defect here must not end the shim: this worker goes on, for ever
                sys.excepthook(*sys.exc_info())
                loop.may_rest = None

    def _hand_over(self, line: KeeperLine | None) -> None:
        """Leave all that is known and open with the keeper, at a moment when all tasks rest."""
        assert line is not None
        self._publisher.disconnect()
        handover = Handover()
        record = self._inventory.to_record(handover)
        record.version, record.connections = records.VERSION, self._server.to_records(handover)
        handover.state = record.encode()
        handover.pids = list(self._reaper.pids)
        line.hand_over(handover)

    def _take_over(self, handover: Handover) -> None:
        """Go on with what the worker before has left, if there was one."""
        if not handover.state:
            return
        record = records.read(handover.state)
        self._inventory.take_over(handover, record)
        self._server.take_over(handover, record.connections)

    def _on_vacant(self) -> None:
        self._loop.spawn(self._end_when_idle())

    def _on_shutdown(self) -> None:
        self._loop.spawn(self._end())

    async def _end_when_idle(self) -> None:
        await self._loop.sleep(IDLE_LIMIT, rests=True)
        if not self._inventory.vacant:
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
        if self._inventory.vacant:
            self._loop.stop()
