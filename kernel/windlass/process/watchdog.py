"""Names in the log what holds an event loop up: while a loop does not turn, nothing that it serves is answered.

A thread looks at each loop a few times a second. A loop that waits for events is
fine, and is not woken for the question. One that runs something is asked to call
back; when it has not done so for `LIMIT` seconds, the stack of its thread tells
which plugin's code it is in. One case is not seen: code that keeps Python's own
lock that long keeps this thread from looking as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType

from windlass.ownloop import Loop, running

LIMIT = 1.0
TICK = 0.2

logger = logging.getLogger(__name__)


class Watch:
    """What is known of one loop. Only the watchdog's thread changes it; the loop sets the event when it has turned."""

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: int, name: str, remedy: str) -> None:
        """Watch the loop that runs in ``thread``; ``name`` and ``remedy`` are for the log."""
        self._loop = loop
        self._thread = thread
        self._name = name
        self._remedy = remedy
        self._asked = self._reported = False
        self._turned = threading.Event()
        self._fine = time.monotonic()

    def look(self, frames: Mapping[int, FrameType], owners: Mapping[str, str]) -> None:
        """Report a loop that has not turned for too long, and later that it goes on."""
        frame = frames.get(self._thread)
        if frame is None:
            return
        now, waits = time.monotonic(), _waits(frame)
        if waits or self._turned.is_set():
            if self._reported:
                logger.warning("%s goes on after %.1f s", self._name, now - self._fine)
            self._fine, self._reported, self._asked = now, False, False
            self._turned.clear()
        if not self._asked and not waits:
            self._asked = True
            with contextlib.suppress(RuntimeError):  # it has been closed
                self._loop.call_soon_threadsafe(self._turned.set)
        elif now - self._fine > LIMIT and not self._reported:
            self._reported = True
            place, held = _place(frame, owners), now - self._fine
            logger.warning("%s has been held up for %.1f s by %s; %s", self._name, held, place, self._remedy)


def _waits(frame: FrameType) -> bool:
    """Return whether a loop waits for events: then its own code is what called `select`."""
    caller = frame.f_back
    return frame.f_code.co_name == "select" and caller is not None and caller.f_code.co_name == "_run_once"


def _place(frame: FrameType, owners: Mapping[str, str]) -> str:
    """Return whose code a thread is in, and where: the innermost place that is a plugin's, if there is one."""
    inner: FrameType | None = frame
    while inner is not None:
        owner = owners.get(inner.f_globals.get("__name__", "").partition(".")[0])
        if owner is not None:
            return f"{owner} at {_line(inner)}" + ("" if inner is frame else f", where it is in {_line(frame)}")
        inner = inner.f_back
    return f"code outside of plugins at {_line(frame)}"


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_qualname})"


class Watchdog:
    """One thread that watches loops."""

    def __init__(self, loops: Mapping[asyncio.AbstractEventLoop, Loop] = running) -> None:
        """Watch ``loops``, which may come and go."""
        self._loops = loops
        self._owners: Mapping[str, str] = {}
        self._end = threading.Event()

    def start(self, owners: Mapping[str, str]) -> None:
        """Begin to look; ``owners`` names the plugin for the first part of a module's name."""
        self._owners = owners
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._end.set()

    def _run(self) -> None:
        watches: dict[asyncio.AbstractEventLoop, Watch] = {}
        while not self._end.wait(TICK):
            # loops come and go in other threads: `items` is copied in one step
            watches = {loop: watches.get(loop) or Watch(loop, *each) for loop, each in list(self._loops.items())}
            # the documented way to other threads' stacks, underscore or not
            frames = sys._current_frames()
            for watch in watches.values():
                watch.look(frames, self._owners)
            del frames  # they hold what their functions hold
