"""The gate: calls are counted and timed, deadlines hold, a sick plugin is refused quickly."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from windlass.errors import DeadlineExceeded, NotFound, Unavailable
from windlass.gate import MISSES_TO_OPEN, Breaker, Gate, Handle, offload, offloaded, take
from windlass.plugin import contract, quick
from windlass.pool import Job


@contract
class Facet(Protocol):
    def read(self) -> str: ...


class Leaf(Facet):
    def read(self) -> str:
        return "leaf"


class Store:
    """A plugin's instance with every kind of method."""

    size = 7

    def __init__(self) -> None:
        self.release = threading.Event()
        self.closed: list[str] = []

    def get(self, key: str) -> str:
        if key == "missing":
            raise NotFound("key missing does not exist")
        return key.upper()

    def hang(self) -> str:
        self.release.wait(30)
        return "late"

    def thread(self) -> str:
        return threading.current_thread().name

    def facet(self) -> Facet:
        return Leaf()

    def walk(self) -> Iterator[int]:
        yield from range(250)

    def threads(self) -> Iterator[str]:
        yield self.thread()
        yield self.thread()

    async def wait(self) -> str:
        return "waited"


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.release.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate("type.store.1", pool_size=2)
    yield gate
    gate.close()


@pytest.fixture
def handle(store: Store, gate: Gate) -> Store:
    return Handle(store, gate)  # type: ignore[return-value] # a handle has the methods of what it stands for


async def test_calls_are_counted_and_timed(handle: Store, gate: Gate) -> None:
    """Sync and async calls, and failures beside successes."""
    assert handle.get("a") == "A"
    with pytest.raises(NotFound):
        handle.get("missing")
    assert await handle.wait() == "waited"
    account = gate.accounts["get"]
    assert (account.calls, account.failures, account.running) == (2, 1, 0)
    assert account.total >= account.longest > 0
    assert gate.accounts["wait"].calls == 1


def test_what_is_no_method_passes_as_it_is(handle: Store) -> None:
    """Attributes are the instance's own."""
    assert handle.size == 7


def test_a_facet_is_counted_under_the_plugin_that_handed_it_out(handle: Store, gate: Gate) -> None:
    """A store's views are as guarded as the store."""
    assert handle.facet().read() == "leaf"
    assert gate.accounts["facet.read"].calls == 1


async def test_offload_runs_in_the_plugins_own_pool(handle: Store) -> None:
    """The loop's thread is not the plugin's, and the pool carries its name."""
    assert (await offload(handle.thread)).startswith("type.store.1")


async def test_a_function_that_calls_a_plugin_runs_in_the_pool_of_its_handle(handle: Store) -> None:
    """Several calls in one change of threads; a plugin that hangs fills its own pool with them."""

    def both(greeting: str, store: Store) -> tuple[str, str]:
        return store.get(greeting), store.thread()

    greeted, thread = await offload(both, "a", handle)
    assert greeted == "A"
    assert thread.startswith("type.store.1")


async def test_a_function_without_a_plugin_runs_in_a_pool_for_all() -> None:
    """And not on the loop."""
    assert await offload(lambda: threading.current_thread().name) == "io.windlass.kernel"


async def test_a_quick_method_is_called_on_the_loop_until_it_is_slow(gate: Gate) -> None:
    """A disk that hangs costs the other clients one wait, not all of them."""

    class Quick:
        seconds = 0.0

        @quick
        def where(self) -> str:
            time.sleep(self.seconds)
            return threading.current_thread().name

    instance = Quick()
    handle: Quick = Handle(instance, gate)  # type: ignore[assignment] # a handle has the methods of what it stands for
    here = threading.current_thread().name
    assert await offload(handle.where) == here
    instance.seconds = 0.05
    assert await offload(handle.where) == here
    assert (await offload(handle.where)).startswith("type.store.1")


async def test_a_call_that_hangs_ends_at_its_deadline(handle: Store, store: Store, gate: Gate) -> None:
    """The caller learns which plugin did not answer, and for how long."""
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"type\.store\.1: hang did not end within 0\.05 s"):
        await offloaded(handle.hang, deadline=0.05)()
    assert time.monotonic() - begun < 5


async def test_a_result_that_comes_too_late_is_released(handle: Store, store: Store, gate: Gate) -> None:
    """What it holds open has an owner even when its caller has gone."""
    released: list[str] = []
    with pytest.raises(DeadlineExceeded):
        await offloaded(handle.hang, deadline=0.05, discard=released.append)()
    store.release.set()
    for _ in range(100):
        if released:
            break
        await asyncio.sleep(0.02)
    assert released == ["late"]


async def test_a_caller_that_gives_up_leaves_nothing_behind(handle: Store, store: Store, gate: Gate) -> None:
    """Cancelling releases the result as well."""
    released: list[str] = []
    call = asyncio.create_task(offloaded(handle.hang, deadline=None, discard=released.append)())
    await asyncio.sleep(0.05)
    call.cancel()
    store.release.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    for _ in range(100):
        if released:
            break
        await asyncio.sleep(0.02)
    assert released == ["late"]


async def test_a_plugin_that_keeps_missing_deadlines_is_refused_at_once(handle: Store, gate: Gate) -> None:
    """Its callers do not queue behind it, and other plugins never see it."""
    for _ in range(MISSES_TO_OPEN):
        with pytest.raises(DeadlineExceeded):
            await offloaded(handle.hang, deadline=0.01)()
    begun = time.monotonic()
    with pytest.raises(Unavailable, match=r"type\.store\.1 has missed 5 deadlines in a row"):
        handle.get("a")
    assert time.monotonic() - begun < 0.5


async def test_the_call_that_a_breaker_lets_through_reaches_the_plugin(
    handle: Store, store: Store, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own answer, not the breaker's, is what closes the breaker."""
    for _ in range(MISSES_TO_OPEN):
        with pytest.raises(DeadlineExceeded):
            await offloaded(handle.hang, deadline=0.01)()
    store.release.set()
    later = time.monotonic() + 2
    monkeypatch.setattr("windlass.gate.time.monotonic", lambda: later)
    assert await offload(handle.get, "a") == "A"
    assert await offload(handle.get, "b") == "B"


def test_a_breaker_lets_one_call_through_after_its_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """And closes when that one answers."""
    now = [1000.0]
    monkeypatch.setattr("windlass.gate.time.monotonic", lambda: now[0])
    breaker = Breaker("x")
    for _ in range(MISSES_TO_OPEN):
        breaker.missed()
    with pytest.raises(Unavailable):
        breaker.check()
    now[0] += 1.1
    breaker.check()
    with pytest.raises(Unavailable):
        breaker.check()
    breaker.answered()
    breaker.check()


async def test_a_walk_is_taken_in_blocks(handle: Store) -> None:
    """Every item once, and an empty block at the end."""
    walk = handle.walk()
    sizes = [len(await offload(take, walk)) for _ in range(4)]
    assert sizes == [100, 100, 50, 0]


async def test_the_items_of_a_walk_come_from_the_plugins_own_pool(handle: Store) -> None:
    """A walk knows the gate that it came through, as a facet does."""
    walk = handle.threads()
    assert (await offload(take, walk, 1))[0].startswith("type.store.1")
    assert next(walk) == threading.current_thread().name
    assert list(walk) == []


async def test_a_caller_that_is_cancelled_in_the_moment_of_the_answer_leaves_nothing_behind(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is on its way to it, and nobody else would release it."""
    released: list[str] = []
    jobs: list[Job[str]] = []
    submit = gate.pool.submit

    def noted(call: Callable[[], str], discard: Callable[[str], object] | None) -> Job[str]:
        jobs.append(submit(call, discard))
        return jobs[-1]

    monkeypatch.setattr(gate.pool, "submit", noted)
    task = asyncio.create_task(offloaded(gate.guard(lambda: "file", "open"), deadline=5, discard=released.append)())

    # the future wakes the task in the next round of the loop
    while not (jobs and jobs[0].future.done()):
        await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        while released != ["file"]:
            await asyncio.sleep(0.01)


class Panic(BaseException):
    """As extensions in Rust raise: no Exception."""


class Raises:
    """A plugin whose methods raise what is no Exception."""

    def in_thread(self, error: BaseException) -> None:
        raise error

    async def on_loop(self, error: BaseException) -> None:
        raise error


@pytest.mark.parametrize("own_loop", [False, True])
@pytest.mark.parametrize("kind", [Panic, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
async def test_what_is_no_exception_is_told_as_one(kind: type[BaseException], own_loop: bool) -> None:
    """It neither ends the loop nor passes by those who answer a client, and the next call is answered."""
    gate = Gate("type.a.1", own_loop=own_loop)
    handle: Any = Handle(Raises(), gate)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=kind.__name__):
            await offload(handle.in_thread, kind("x"))
        with pytest.raises(RuntimeError, match="StopIteration" if kind is StopIteration else f"{kind.__name__}: x"):
            await handle.on_loop(kind("x"))
    gate.close()


async def test_one_slow_call_keeps_quick_ones_from_the_loop_for_a_second_and_a_second_for_long(gate: Gate) -> None:
    """A busy processor is no reason to leave the loop for long; a disk that hangs again is."""

    class Quick:
        @quick
        def sleep(self) -> None:
            time.sleep(0.05)

    handle: Quick = Handle(Quick(), gate)  # type: ignore[assignment] # a handle has the methods of what it stands for
    await offload(handle.sleep)
    assert gate.slow_until - time.monotonic() <= 1.0
    gate.slow_until = time.monotonic()  # the pause is over
    await offload(handle.sleep)
    assert gate.slow_until - time.monotonic() > 10.0
