"""Waiting that leaves nothing behind: what a cancelled caller has begun has ended when the caller goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from windlass.errors import NotFound

R = TypeVar("R")


async def settled(work: Awaitable[R]) -> R:
    """Return the result of ``work``; a caller that is cancelled meanwhile waits for its end."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # no caller is left to handle it; asyncio would log it
        raise
    finally:
        del task  # an error's traceback has this frame, and the task has the error


async def unless_gone(work: Awaitable[object]) -> None:
    """Wait for ``work``, which removes or ends something; NotFound means that it is done."""
    try:
        await work
    except NotFound:
        pass


def give_up(work: asyncio.Future[R]) -> None:
    """Cancel what nobody waits for any more; how it ends, or has ended, is nobody's concern and not logged."""
    work.cancel()
    work.add_done_callback(lambda done: None if done.cancelled() else done.exception())
