"""The daemon's process from its configuration to its end: signals, readiness, stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path

from windlass import __version__, discovery
from windlass.boot import Daemon
from windlass.config import factories
from windlass.config import loading as config
from windlass.config.loading import Config, Flags, Paths
from windlass.config.validate import NOTE
from windlass.contracts.services import SERVER
from windlass.discovery import Found
from windlass.errors import StartError
from windlass.ownloop import Loop, run_to_its_end, running
from windlass.plugin import Record, State
from windlass.process import faultpoints, later, logs
from windlass.process import setup as process
from windlass.process.directories import close_to_others
from windlass.process.owners import owners_of
from windlass.process.reload import Reloader
from windlass.process.watchdog import Watchdog

logger = logging.getLogger(__name__)

INSTALL = "pip install windlass brings all of ours"
HELD_UP = "no client is served meanwhile; blocking calls belong in a thread"

DRAIN = 1.0
"""How long tasks and threads that are left over after the stop are waited for."""

SAME_SIGNAL = 1.0
"""Signals within this time are one: timeout(1) and terminals signal a process and its group."""


def run(path: Path | None, paths: Paths, flags: Flags) -> int:
    """Run the daemon until a signal stops it and return its exit code. Raises StartError."""
    started = time.monotonic()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # until `serve` can take it
    draft = config.read(path, paths, flags)
    listed = entry_points().select  # one pass over all distributions
    found = discovery.discover(draft.disabled, listed)
    settings = draft.settle(found)
    debug = settings.top.debug
    logs.set_up(debug.level, debug.format, owners_of(found), debug.log_trace_id)
    for problem in settings.problems:
        logger.log(logging.DEBUG if problem.severity == NOTE else logging.WARNING, "%s", problem)
    if not found:
        raise StartError(f"no plugin is installed: {INSTALL}")
    found += factories.made(settings.top, found, draft.disabled, listed)
    lock = process.prepare(settings)

    def read_again() -> Config:
        return config.read(path, paths, flags).settle(found)

    try:
        return run_loop(found, settings, started, read_again)
    finally:
        os.close(lock)


def arm_faults() -> None:
    """Arm the faults that the environment asks for, and say so. Raises StartError."""
    try:
        if faultpoints.arm_from_environment():
            logger.warning("faults are armed by %s: this daemon is going to fail on purpose", faultpoints.VARIABLE)
    except ValueError as error:
        raise StartError(f"{faultpoints.VARIABLE}: {error}") from None


def run_loop(found: Sequence[Found], settings: Config, started: float, read: Callable[[], Config] | None = None) -> int:
    """Run the daemon on a loop of its own.

    Not asyncio.run: that waits without end for threads of plugins that hang.
    """
    arm_faults()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    pool = ThreadPoolExecutor(thread_name_prefix="kernel")
    loop.set_default_executor(pool)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: _dump_soon(loop))
    try:
        return run_to_its_end(loop, loop.create_task(serve(found, settings, started, read or (lambda: settings))))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=DRAIN))
        loop.run_until_complete(loop.shutdown_asyncgens())
        pool.shutdown(wait=False, cancel_futures=True)


async def serve(found: Sequence[Found], settings: Config, started: float, read: Callable[[], Config]) -> int:
    """Start every plugin, say that the daemon is ready, and stop all when a signal comes.

    ``read`` reads the configuration again when another signal asks for that.
    """
    loop = asyncio.get_running_loop()
    stopping = _Stopping(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.signal, signal.Signals(number).name)
    daemon = Daemon(found, settings, close_to_others, settings.check)
    reloader = Reloader(daemon, settings, read, found)
    loop.add_signal_handler(signal.SIGHUP, reloader.request)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    running[loop] = Loop(threading.get_ident(), "the event loop", HELD_UP)
    watchdog = Watchdog()
    watchdog.start(owners_of(found))
    stop = asyncio.create_task(stopping.event.wait())
    start = asyncio.create_task(_become_ready(daemon, started))
    try:
        await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            await start
            await reloader.follow(stop)
        else:
            start.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await start
    finally:
        stop.cancel()
        await daemon.stop()
        watchdog.stop()
        del running[loop]
    logger.info("stopped")
    return 0


async def _become_ready(daemon: Daemon, started: float) -> None:
    await daemon.start()
    gc.freeze()
    gc.enable()
    check_servers(daemon.records)
    await daemon.wait_ready()
    states = [record.state for record in daemon.records]
    counts = [f"{states.count(state)} {state}" for state in (State.OK, State.SKIPPED, State.FAILED, State.DISABLED)]
    seconds = time.monotonic() - started
    logger.info("windlass %s is ready after %.2f s; plugins: %s", __version__, seconds, ", ".join(counts))
    process.notify("READY=1")
    later.load(daemon.later)


def check_servers(records: Sequence[Record]) -> None:
    """Raise StartError when no server has started: the daemon would run, and no client could ever reach it."""
    servers = [record for record in records if record.uri.startswith(f"{SERVER.uri}.")]
    if any(record.state == State.OK for record in servers):
        return
    if not servers:
        raise StartError(f"no server is installed, so no client could connect: {INSTALL}")
    lines = ["no server has started, so no client could connect:"]
    for record in servers:
        lines.append(f"{record.uri} is {record.state}: {record.message or 'take it out of disabled_plugins'}")
    raise StartError("\n".join(lines))


class _Stopping:
    """What a signal to stop does: the first one begins the stop, one that comes later ends the process."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.event = asyncio.Event()
        self._loop = loop
        self._since = 0.0

    def signal(self, name: str) -> None:
        if not self.event.is_set():
            logger.info("%s: stopping", name)
            self._since = self._loop.time()
            self.event.set()
            process.notify("STOPPING=1")
        elif self._loop.time() - self._since > SAME_SIGNAL:
            logger.warning("%s again: exit without waiting for plugins", name)
            logging.shutdown()
            os._exit(1)


def leave(code: int) -> None:
    """End the process now if plugins have left threads behind that would keep it; otherwise return."""
    deadline = time.monotonic() + DRAIN
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                logger.warning("%s does not end; leaving without it", thread.name)
                logging.shutdown()
                sys.stdout.flush()
                os._exit(code)


def _dump_soon(loop: asyncio.AbstractEventLoop) -> None:
    # a signal may come while the main thread holds the log's lock, so another thread writes
    threading.Thread(target=dump_stacks, args=(loop,), name="stacks", daemon=True).start()


def dump_stacks(loop: asyncio.AbstractEventLoop) -> None:
    """Write the stacks of all threads and tasks to the log and to $TMPDIR/windlass.<pid>.stacks.log."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    # the documented way to other threads' stacks, underscore or not
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame))
        parts.append(f"thread {names.get(ident, ident)}:\n{stack}")
    for task in asyncio.all_tasks(loop):
        lines = [
            f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}\n" for frame in task.get_stack()
        ]
        parts.append(f"task {task.get_name()}:\n{''.join(lines)}")
    text = "\n".join(parts)
    logger.info("stacks of all threads and tasks:\n%s", text)
    path = Path(tempfile.gettempdir()) / f"windlass.{os.getpid()}.stacks.log"
    try:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        logger.warning("cannot write %s: %s", path, error.strerror)
        return
    logger.info("stacks are in %s too", path)
