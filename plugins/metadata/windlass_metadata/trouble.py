"""What is wrong with a store or a collection, logged when that changes and not at every new attempt."""

from __future__ import annotations

import logging
import threading


class Trouble:
    """What ``what`` suffers from, as the log knows it; for any number of threads."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        """All is well at first."""
        self._logger = logger
        self._what = what
        self._guard = threading.Lock()
        self._told = ""

    def tell(self, problem: str) -> None:
        """Log ``problem``, or that there is none any more (""), unless that was logged last."""
        with self._guard:
            if problem == self._told:
                return
            self._told = problem
        if problem:
            self._logger.warning("%s: %s; it is tried again, and logged again when that changes", self._what, problem)
        else:
            self._logger.info("%s: all is well again", self._what)
