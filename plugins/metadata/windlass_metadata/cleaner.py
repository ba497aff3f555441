"""Runs the cleaning of one store in a thread of its own, so that a store that hangs does not block others.

A store that fails, or does not end in time, is *parked*: it is left alone for a
while, longer each time, and what it has to remove stays in the trash.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from windlass_metadata.threads import in_thread
from windlass_metadata.trouble import Trouble

logger = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""A store that is well again waits for so long at most."""


class Cleaner:
    """Keeps one store clean."""

    def __init__(self, title: str, is_wanted: Callable[[], bool], clean: Callable[[bool], int]) -> None:
        """Call ``clean`` when asked and ``is_wanted``, or else it looks for strays: the first time, after a failure."""
        self.title = title
        self._is_wanted = is_wanted
        self._clean = clean
        self._guard = threading.Lock()
        self._run: Future[Exception | None] | None = None
        self._again = False
        self._full = True
        self._overdue = False
        self._pause = 0.0
        self._parked_until = 0.0
        self._trouble = Trouble(logger, f"cleaning {title}")
        self.removed = 0
        """Objects removed since the daemon started."""

    def suspect(self) -> None:
        """Look for strays the next time."""
        self._full = True

    def start(self) -> Future[Exception | None] | str:
        """Begin to clean, or say why not, "" when there is nothing to do; a run under way goes round once more."""
        if not self._full and not self._is_wanted():
            return ""
        with self._guard:
            if self._run:
                if self._overdue:
                    return f"{self.title} is still busy with an earlier collection"
                self._again = True
                return self._run
            left = self._parked_until - time.monotonic()
            if left > 0:
                return f"{self.title} failed and is tried again in {left:.0f} s"
            self._run = in_thread(f"clean {self.title}", self._work)
            return self._run

    def finish(self, run: Future[Exception | None], deadline: float) -> str:
        """Wait for a run until ``deadline`` and return what is wrong with it, empty for nothing."""
        try:
            error = run.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            with self._guard:
                self._overdue = self._run is run
            self._trouble.tell("it has not ended in time")
            return f"{self.title} has not ended in time; it goes on in the background"
        return f"{self.title}: {error}" if error else ""

    def _work(self) -> None:
        ended = False
        try:
            while not ended:
                with self._guard:
                    self._again = False
                    full, self._full = self._full, False
                try:
                    self.removed += self._clean(full)
                except BaseException as error:
                    self._full = self._full or full
                    self._trouble.tell(str(error) or type(error).__name__)
                    raise
                with self._guard:
                    ended = not self._again
                    if ended:
                        self._end(0.0)
            self._trouble.tell("")
        finally:
            if not ended:
                self._park()

    def _park(self) -> None:
        with self._guard:
            self._end(min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE))

    def _end(self, pause: float) -> None:
        self._run, self._overdue, self._pause = None, False, pause
        self._parked_until = time.monotonic() + pause
