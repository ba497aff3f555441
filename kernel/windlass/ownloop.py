"""Event loops that plugins cannot end, and one in a thread of its own for a plugin that might block it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import NamedTuple, TypeVar

from windlass.errors import Unavailable, as_exception, with_class

logger = logging.getLogger(__name__)
R = TypeVar("R")


class Loop(NamedTuple):
    """An event loop that plugins' code runs on: its thread, its name, and the remedy when it is held up."""

    thread: int
    name: str
    remedy: str


running: dict[asyncio.AbstractEventLoop, Loop] = {}
"""Every such loop of this process, for `windlass.process.watchdog`."""
REMEDY = "other calls of it wait meanwhile; blocking calls belong in a thread"


async def only_exceptions(answer: Awaitable[R]) -> R:
    """Await a plugin's answer. Other BaseExceptions than a cancellation are raised as an Exception."""
    try:
        return await answer
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        raise as_exception(error) from error


def run_to_its_end(loop: asyncio.AbstractEventLoop, main: asyncio.Task[R]) -> R:
    """Run ``main``, whatever other tasks do: SystemExit or KeyboardInterrupt in one leaves the loop, which goes on."""
    while True:
        try:
            return loop.run_until_complete(main)
        except (SystemExit, KeyboardInterrupt) as error:
            if main.done():
                raise
            logger.error("what a plugin's task raises ends that task only: %s", with_class(error), exc_info=error)


class OwnLoop:
    """Runs coroutines for other loops; its thread starts with the first, and keeps no process from ending."""

    def __init__(self, uri: str) -> None:
        """Serve the plugin ``uri``."""
        self._uri = uri
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._closed = False

    async def run(self, call: Callable[[], Coroutine[None, None, R]]) -> R:
        """Await what ``call`` returns on the plugin's own loop; a cancellation reaches it there.

        Raises Unavailable once closed.
        """
        loop = self._running()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), loop))

    def close(self) -> None:
        """Cancel what is under way, and end; it is not waited for. Again is not an error."""
        with self._lock:
            closed, self._closed = self._closed, True
            if self._loop is not None and not closed:  # a loop that has ended takes no calls
                self._loop.call_soon_threadsafe(self._stop.set)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise Unavailable(f"{self._uri} has been stopped; it takes no further calls")
            if self._loop is None:
                self._loop, name = asyncio.new_event_loop(), f"loop {self._uri}"
                threading.Thread(target=self._serve, args=(self._loop,), name=name, daemon=True).start()
            return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        running[loop] = Loop(threading.get_ident(), f"the event loop of {self._uri}", REMEDY)
        try:
            # its end cancels the tasks that are left
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                run_to_its_end(loop, runner.get_loop().create_task(self._stop.wait()))
        finally:
            running.pop(loop, None)
