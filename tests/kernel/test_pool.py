"""The pool of a plugin: how many threads it has, whose the results are, and what its end does."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from windlass.errors import DeadlineExceeded, Unavailable
from windlass.pool import Job, Pool


@pytest.fixture
def pool() -> Iterator[Pool]:
    """A pool of two threads."""
    pool = Pool("type.a.1", 2)
    yield pool
    pool.close()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What calls wait for; set at the end, so that no thread is left."""
    release = threading.Event()
    yield release
    release.set()


class Results(list[str]):
    """Results that were discarded."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Event()

    def take(self, result: str) -> None:
        self.append(result)
        self.came.set()


async def test_a_thread_is_started_for_a_job_that_finds_none_free(pool: Pool) -> None:
    """One after the other they share a thread; an idle plugin has one, and a plugin that is not called none."""
    assert not pool.threads
    for _ in range(5):
        await pool.submit(lambda: None, None).future
        while pool._unfinished:  # the thread counts down after it has answered
            await asyncio.sleep(0.001)
    assert len(pool.threads) == 1


async def test_no_more_threads_than_the_pool_may_have(pool: Pool, release: threading.Event) -> None:
    """Further jobs wait for one of them, and are made in their order."""
    made: list[int] = []
    jobs = [pool.submit(release.wait, None) for _ in range(2)]
    later = [pool.submit(partial(made.append, number), None) for number in range(3)]
    await asyncio.sleep(0.05)
    assert made == []
    release.set()
    await asyncio.gather(*(job.future for job in jobs), *(job.future for job in later))
    assert sorted(made) == [0, 1, 2]
    assert len(pool.threads) == 2


async def test_threads_carry_the_pools_name_and_keep_no_process(pool: Pool) -> None:
    """A plugin that hangs is seen in a dump of stacks by its name, and the daemon ends without it."""
    thread = await pool.submit(threading.current_thread, None).future
    assert (thread.name, thread.daemon) == ("type.a.1", True)


async def test_a_job_sees_the_variables_of_its_caller(pool: Pool) -> None:
    """Those of the moment it was submitted; what it sets itself is its own."""
    variable = contextvars.ContextVar("variable", default="nobody's")
    variable.set("caller's")

    def ask() -> str:
        found = variable.get()
        variable.set("job's")
        return found

    job = pool.submit(ask, None)
    variable.set("later")
    assert await job.future == "caller's"
    assert variable.get() == "later"


async def test_a_job_whose_caller_has_gone_is_not_made(pool: Pool, release: threading.Event) -> None:
    """Nothing that waits in a queue is worth doing for nobody."""
    made: list[str] = []
    running = [pool.submit(release.wait, None) for _ in range(2)]
    waiting = pool.submit(lambda: made.append("made"), None)
    waiting.future.cancel()
    release.set()
    await asyncio.gather(*(job.future for job in running))
    await pool.submit(lambda: None, None).future
    assert made == []


async def test_a_late_result_is_discarded_in_a_thread(pool: Pool, release: threading.Event) -> None:
    """Not on the loop, which closing a file could hold up; the caller got its error before."""
    threads: list[int] = []
    results = Results()

    def discard(result: str) -> None:
        threads.append(threading.get_ident())
        results.take(result)

    def late() -> str:
        release.wait(30)
        return "late"

    job = pool.submit(late, discard)
    job.expire(late, 0.5)
    assert job.missed
    with pytest.raises(DeadlineExceeded, match=r"^type\.a\.1: late did not end within 0\.5 s$"):
        await job.future
    release.set()
    assert await asyncio.to_thread(results.came.wait, 20)
    assert results == ["late"]
    assert set(threads) <= pool.threads


async def test_a_late_result_is_discarded_though_the_pool_is_closed(pool: Pool, release: threading.Event) -> None:
    """What it holds open must not outlive the plugin that was stopped."""
    results = Results()
    job = pool.submit(lambda: str(release.wait(30)), results.take)
    job.future.cancel()
    pool.close()
    release.set()
    assert await asyncio.to_thread(results.came.wait, 20)
    assert results == ["True"]


def test_a_result_without_a_loop_is_discarded(pool: Pool, release: threading.Event) -> None:
    """The loop of its caller has ended meanwhile."""
    results = Results()

    async def submit() -> Job[str]:
        return pool.submit(lambda: str(release.wait(30)), results.take)

    asyncio.run(submit())
    release.set()
    assert results.came.wait(20)
    assert results == ["True"]


async def test_an_error_after_the_deadline_disturbs_nobody(pool: Pool, release: threading.Event) -> None:
    """The caller has its answer, and the thread goes on with the next job."""

    def fail() -> None:
        release.wait(30)
        raise ValueError("too late")

    job = pool.submit(fail, None)
    job.expire(fail, 1)
    with pytest.raises(DeadlineExceeded):
        await job.future
    release.set()
    assert await pool.submit(lambda: "next", None).future == "next"


async def test_a_closed_pool_drops_its_queue_and_takes_no_more(pool: Pool, release: threading.Event) -> None:
    """Callers that wait are answered at once; what is under way ends as it ends."""
    running = [pool.submit(lambda: release.wait(30), None) for _ in range(2)]
    waiting = pool.submit(lambda: None, None)
    pool.close()
    with pytest.raises(Unavailable, match="stopped before it took the call"):
        await asyncio.wait_for(waiting.future, 20)
    with pytest.raises(Unavailable, match=r"^type\.a\.1 has been stopped; it takes no further calls$"):
        pool.submit(lambda: None, None)
    release.set()
    assert await asyncio.gather(*(job.future for job in running)) == [True, True]


async def test_the_threads_of_a_closed_pool_end() -> None:
    """A plugin that is stopped leaves none behind."""
    pool = Pool("type.a.1", 3)
    thread = await pool.submit(threading.current_thread, None).future
    pool.close()
    await asyncio.to_thread(thread.join, 20)
    assert not thread.is_alive()


async def test_a_finished_job_is_neither_expired_nor_discarded(pool: Pool) -> None:
    """A timer that comes late changes nothing; the result is its caller's."""
    results = Results()
    job = pool.submit(lambda: "mine", results.take)
    assert await job.future == "mine"
    job.expire(None, 1)
    assert (job.missed, await job.future, results) == (False, "mine", [])
