"""The event loop: waiting, time, cancellation, and children whose exit comes early."""

from __future__ import annotations

import os
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from windlass_shim_runc.loop import Flag, Lock, Loop
from windlass_shim_runc.reaper import Reaper


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop."""
    loop = Loop()
    yield loop
    loop.close()


def run(loop: Loop, coroutine: Coroutine[Any, Any, None]) -> None:
    """Run one coroutine to its end."""

    async def all_of_it() -> None:
        try:
            await coroutine
        finally:
            loop.stop()

    loop.spawn(all_of_it())
    loop.run()


def test_a_task_waits_for_data(loop: Loop) -> None:
    """readable returns when there is something to read, and not before."""
    reading, writing = os.pipe()
    seen = []

    async def write() -> None:
        await loop.sleep(0.02)
        os.write(writing, b"x")

    async def read() -> None:
        loop.spawn(write())
        await loop.readable(reading, 5)
        seen.append(os.read(reading, 1))

    run(loop, read())
    assert seen == [b"x"]
    os.close(reading)
    os.close(writing)


def test_waiting_has_a_deadline(loop: Loop) -> None:
    """Descriptors and flags raise TimeoutError, and can be waited for again."""
    reading, writing = os.pipe()
    errors = []

    async def wait() -> None:
        for waiting in (loop.readable(reading, 0.01), Flag(loop).wait(0.01), loop.readable(reading, 0.01)):
            try:
                await waiting
            except TimeoutError as error:
                errors.append(error)

    started = time.monotonic()
    run(loop, wait())
    assert len(errors) == 3
    assert time.monotonic() - started < 1
    os.close(reading)
    os.close(writing)


def test_a_flag_wakes_all_and_a_lock_admits_one(loop: Loop) -> None:
    """Every waiter of a flag goes on; holders of a lock never overlap."""
    flag, lock, order = Flag(loop), Lock(loop), list[str]()

    async def work(name: str) -> None:
        await flag.wait()
        async with lock:
            order.append(name)
            await loop.sleep(0.005)
            order.append(name)

    async def main() -> None:
        tasks = [loop.spawn(work(name)) for name in "abc"]
        await loop.sleep(0.005)
        flag.set()
        for task in tasks:
            await task.finished.wait()

    run(loop, main())
    assert order == ["a", "a", "b", "b", "c", "c"]


def test_cancel_runs_finally_and_frees_the_descriptor(loop: Loop) -> None:
    """A cancelled task's descriptor can be waited for by another at once."""
    reading, writing = os.pipe()
    events = []

    async def wait() -> None:
        try:
            await loop.readable(reading)
        finally:
            events.append("finally")

    async def main() -> None:
        task = loop.spawn(wait())
        await loop.sleep(0.001)
        loop.cancel(task)
        events.append("cancelled")
        os.write(writing, b"x")
        await loop.readable(reading, 1)

    run(loop, main())
    assert events == ["finally", "cancelled"]
    os.close(reading)
    os.close(writing)


def test_a_defect_in_a_task_is_reported_and_ends_only_that_task(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    """The others go on: they may keep somebody's container."""

    async def broken() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        task = loop.spawn(broken())
        await task.finished.wait(1)

    run(loop, main())
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_exit_that_comes_before_its_pid_is_known_is_kept(loop: Loop) -> None:
    """While a launch is under way; afterwards unknown exits are forgotten."""
    reaper, seen = Reaper(loop), list[int]()

    def child(code: int) -> int:
        pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"exit {code}"], {})
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return pid

    with reaper:
        pid = child(3)
        reaper.reap()
        reaper.watch(pid, lambda status, at: seen.append(status))
    late = child(4)
    reaper.reap()
    reaper.watch(late, lambda status, at: seen.append(status))

    assert seen == [3]


def test_a_task_with_a_deadline_is_interrupted_once_wherever_it_waits() -> None:
    """What it waits for raises TimeoutError at the deadline; afterwards it has time to clean up, and others go on."""
    loop = Loop()
    seen: list[str] = []

    async def limited() -> None:
        loop.limit(0.05)
        try:
            await Flag(loop).wait(60)
        except TimeoutError:
            seen.append("interrupted")
        await loop.sleep(0.05)
        seen.append("cleaned up")
        loop.stop()

    async def free() -> None:
        await loop.sleep(0.07)
        seen.append("untouched")

    loop.spawn(limited())
    loop.spawn(free())
    loop.run()
    loop.close()
    assert seen == ["interrupted", "untouched", "cleaned up"]


def test_a_descriptor_that_cannot_be_waited_for_is_its_tasks_error(loop: Loop) -> None:
    """Closed, or waited for already: the loop goes on."""
    reading, writing = os.pipe()
    seen: list[object] = []

    async def ask(fd: int) -> None:
        try:
            await loop.readable(fd, 5)
        except OSError as error:
            seen.append(type(error))
        else:
            seen.append(fd)

    async def all_of_it() -> None:
        loop.spawn(ask(reading))
        loop.spawn(ask(reading))
        loop.spawn(ask(1 << 20))
        await loop.sleep(0.02)
        os.write(writing, b"x")
        await loop.sleep(0.02)

    run(loop, all_of_it())
    assert seen == [FileExistsError, OSError, reading]
    os.close(reading)
    os.close(writing)


def test_a_loop_ends_when_all_rest_and_may(loop: Loop) -> None:
    """Not while one only waits, or has a deadline, and not unless it is allowed."""
    loop.quiet = 0.01
    reading, writing = os.pipe()
    asked: list[int] = []
    busy, begun = Flag(loop), time.monotonic()

    async def rests() -> None:
        await loop.readable(reading, rests=True)

    async def has_a_deadline() -> None:
        loop.limit(0.05)
        try:
            await Flag(loop).rest()
        except TimeoutError:
            busy.set()

    async def waits() -> None:
        await busy.wait()

    def may_rest() -> bool:
        asked.append(1)
        return len(asked) > 2

    loop.may_rest = may_rest
    for each in (rests(), has_a_deadline(), waits()):
        loop.spawn(each)
    assert loop.run()
    assert len(asked) == 3
    assert time.monotonic() - begun >= 0.05
    os.close(reading)
    os.close(writing)
