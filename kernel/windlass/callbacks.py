"""Awaiting what plugins want done at start and at stop: each callback has its time, and cannot leave the loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from windlass.ownloop import only_exceptions

StartCallback = Callable[[], Awaitable[None]]
StopCallback = Callable[[], Awaitable[None] | None]

Reload = tuple[frozenset[str], StopCallback]
"""Keys of a plugin's configuration, and what takes over their new values."""

UNWIND = 1.0
"""Seconds that a callback has to end once it is cancelled."""


async def run(callback: StopCallback, seconds: float) -> None:
    """Call and await a callback, a synchronous one in a thread; one that outlives its cancellation is left behind.

    Raises TimeoutError, and RuntimeError for a callback that lets the cancellation of something else pass.
    """
    task = asyncio.ensure_future(only_exceptions(_call(callback)))
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if late := task.cancel():
            await asyncio.wait({task}, timeout=UNWIND)
    if late:
        raise TimeoutError(f"it did not end within {seconds:g} s")
    if task.cancelled():
        raise RuntimeError("it ended by CancelledError, which something that it awaited has raised")
    task.result()


async def _call(callback: StopCallback) -> None:
    result = callback() if inspect.iscoroutinefunction(callback) else await asyncio.to_thread(callback)
    if inspect.isawaitable(result):
        await result
