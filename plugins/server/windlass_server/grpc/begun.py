"""Handlers that mostly end without waiting for anything, which then need no task and no turn of the loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Generator

from windlass.typing import override

Steps = Coroutine[object, object, None]


class Begun(Coroutine[object, object, None]):
    """What is left of a coroutine that waits for something; a task cannot tell it from the whole one."""

    __slots__ = ("_first", "_waiting", "context")

    def __init__(self, first: Steps, waiting: object, context: contextvars.Context) -> None:
        """Go on with ``first``, which ran in ``context``, once its task knows that it is ``waiting``."""
        self._first = first
        self._waiting: object = waiting
        self.context = context

    @override
    def send(self, value: object) -> object:
        waiting, self._waiting = self._waiting, None
        return self._first.send(value) if waiting is None else waiting

    @override
    def throw(self, *error: object) -> object:
        waiting, self._waiting = self._waiting, None
        if isinstance(waiting, asyncio.Future):  # the task is cancelled before it could pass that on
            waiting.cancel()
        return self._first.throw(*error)  # type: ignore[call-overload] # what a task throws

    @override
    def close(self) -> None:
        self._first.close()

    @override
    def __await__(self) -> Generator[object, object, None]:
        raise NotImplementedError("only a task runs it")


def begun(first: Steps) -> Begun | None:
    """Run a coroutine until it waits for something; return what is left of it, None if it has ended.

    What it raises before that is raised here, but for its own cancellation, which is an end.
    """
    context = contextvars.copy_context()
    try:
        waiting = context.run(first.send, None)
    except (StopIteration, asyncio.CancelledError):
        return None
    return Begun(first, waiting, context)
