"""Calls whose result, or error, is for another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar, cast

from windlass.records import dataclass

R = TypeVar("R")


@dataclass(slots=True)
class Outcome(Generic[R]):
    """What became of a call: its result, or the error it raised."""

    result: R | None = None
    error: Exception | None = None

    def get(self) -> R:
        """Return the result, or raise the error, which is let go of: together with its traceback it would stay."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        return cast(R, self.result)  # without an error there is a result, None though it may be


def attempt(call: Callable[[], R]) -> Outcome[R]:
    """Make a call and keep whatever comes of it for the one who asked."""
    try:
        return Outcome(call())
    except Exception as error:  # noqa: BLE001 - raised again in the thread that asked for the call
        return Outcome(error=error)


def in_thread(name: str, call: Callable[[], None]) -> Future[Exception | None]:
    """Run ``call`` in a thread of its own, which never keeps the daemon from ending; the future has its error."""
    future: Future[Exception | None] = Future()

    def run() -> None:
        future.set_result(attempt(call).error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
