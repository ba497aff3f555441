"""Fault points: named places where code can be made to fail, to wait or to die, for tests and for drills.

Every call of a plugin from another is a point, ``URI.METHOD``; plugins and libraries have further ones. Nothing is
armed unless `windlass.process.faultpoints` finds it in the environment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

Action = Callable[[], None]

armed: dict[str, Iterator[Action]] = {}
"""What each point still has to do; empty almost always."""
_using = threading.Lock()


def point(name: str) -> None:
    """Do what is armed for ``name``: nothing, mostly. Raises OSError where an error is."""
    if armed and name in armed:
        with _using:
            action = next(armed[name], None)
        if action is not None:
            action()
