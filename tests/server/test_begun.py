"""Handlers whose first step is taken before they have a task."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine

import pytest

from windlass_server.grpc.begun import begun

Handler = Callable[[], Coroutine[object, object, None]]


async def test_one_that_waits_for_nothing_has_ended() -> None:
    done = []

    async def handler() -> None:
        done.append(1)

    assert begun(handler()) is None
    assert done == [1]


async def test_one_that_waits_goes_on_in_a_task_and_its_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    seen: list[object] = []

    async def handler() -> None:
        variable.set("inside")
        seen.append(await future)
        await asyncio.sleep(0)
        seen.append(variable.get())
        seen.append(asyncio.current_task())

    rest = begun(handler())
    assert rest is not None
    assert variable.get() == "outside"
    task = asyncio.get_running_loop().create_task(rest, context=rest.context)
    future.set_result("it")
    await task
    assert seen == ["it", "inside", task]


async def test_what_it_raises_reaches_its_task() -> None:
    async def handler() -> None:
        await asyncio.sleep(0)
        raise ValueError("it")

    rest = begun(handler())
    assert rest is not None
    with pytest.raises(ValueError, match="it"):
        await asyncio.get_running_loop().create_task(rest)


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_cancelled_at_any_time_it_passes_that_on(turns: int) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended = []

    async def handler() -> None:
        try:
            await future
        finally:
            ended.append(1)

    rest = begun(handler())
    assert rest is not None
    task = asyncio.get_running_loop().create_task(rest)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1]
    assert future.cancelled()


async def test_one_that_cancels_itself_has_ended() -> None:
    async def handler() -> None:
        raise asyncio.CancelledError

    assert begun(handler()) is None
