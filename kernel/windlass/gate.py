"""The gate: the boundary that every call from one plugin to another passes.

A lookup hands out a handle instead of the instance. A handle has the instance's
methods; each call is counted and timed, refused at once while the plugin's
breaker is open, and, when the loop makes it through `offload`, runs in the
plugin's own bounded pool under a deadline. A sick plugin so delays its own
callers, for a bounded time, and nobody else.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ParamSpec, TypeVar

from windlass import faults
from windlass.errors import Unavailable
from windlass.marks import CONTRACT_MARK, is_quick, quick
from windlass.ownloop import OwnLoop, only_exceptions
from windlass.pool import Pool

P = ParamSpec("P")
R = TypeVar("R")

POOL_SIZE = 16
DEFAULT_TIMEOUT = 60.0
MISSES_TO_OPEN = 5
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
QUICK_LIMIT = 0.02
SLOW_PAUSE = 30.0


@dataclass(slots=True)
class Account:
    """What one method of a plugin has cost; times in nanoseconds."""

    method: str
    calls: int = 0
    failures: int = 0
    running: int = 0
    total: int = 0
    longest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self) -> int:
        """Begin a call and return its start."""
        with self.lock:
            self.calls += 1
            self.running += 1
        return time.monotonic_ns()

    def leave(self, started: int, failed: bool) -> None:
        """End a call."""
        took = time.monotonic_ns() - started
        with self.lock:
            self.running -= 1
            self.failures += failed
            self.total += took
            self.longest = max(self.longest, took)


class Breaker:
    """Refuses calls for a while after several deadlines in a row were missed.

    While it is open every call is refused; when its pause is over one call is let
    through, and its outcome closes the breaker or doubles the pause.
    """

    def __init__(self, uri: str) -> None:
        """Start closed."""
        self._uri = uri
        self._misses = 0
        self._pause = FIRST_PAUSE
        self._open_until = 0.0

    def check(self) -> None:
        """Raise Unavailable while the breaker is open."""
        if self._misses < MISSES_TO_OPEN:
            return
        left = self._open_until - time.monotonic()
        if left > 0:
            raise Unavailable(
                f"{self._uri} has missed {self._misses} deadlines in a row; it is tried again in {left:.1f} s"
            )
        self._open_until = time.monotonic() + self._pause

    def missed(self) -> None:
        """Count a deadline that was missed."""
        self._misses += 1
        if self._misses >= MISSES_TO_OPEN:
            self._open_until = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def answered(self) -> None:
        """Count a call that ended in time, well or not."""
        if self._misses:
            self._misses = 0
            self._pause = FIRST_PAUSE


class Gate:
    """The boundary around one plugin's instance: accounts, breaker, pool, and a loop if its type wants that."""

    def __init__(self, uri: str, pool_size: int = POOL_SIZE, own_loop: bool = False) -> None:
        """Guard the plugin ``uri``; threads start when they are needed. ``own_loop``: see `PluginType.own_loop`."""
        self.uri = uri
        self._own_loop = OwnLoop(uri) if own_loop else None
        self.accounts: dict[str, Account] = {}
        self.breaker = Breaker(uri)
        self.pool = Pool(uri, pool_size)
        self._slow_until = 0.0

    def account(self, method: str) -> Account:
        """Return the account of a method, a new one if need be."""
        return self.accounts.setdefault(method, Account(method))

    def may_be_quick(self) -> bool:
        """Tell whether the loop may call quick methods itself."""
        return time.monotonic() >= self._slow_until

    @contextmanager
    def held_to_be_quick(self) -> Iterator[None]:
        """Send calls that are said to be quick to the pool for a while when this one is not: a disk may hang."""
        begin = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            if end - begin > QUICK_LIMIT:
                self._slow_until = end + SLOW_PAUSE

    # Any, here and below: one piece of code guards the methods of every contract.
    def guard(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return ``method`` with every call counted, timed and subject to the breaker."""
        account, breaker, place, own_loop = self.account(name), self.breaker, f"{self.uri}.{name}", self._own_loop

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            breaker.check()
            started, failed = account.enter(), True
            try:
                if faults.armed:
                    await asyncio.to_thread(faults.point, place)
                if own_loop is not None:
                    result = await own_loop.run(lambda: only_exceptions(method(*args, **kwargs)))
                else:
                    result = await only_exceptions(method(*args, **kwargs))
                failed = False
                return result
            finally:
                account.leave(started, failed)

        def call(*args: Any, **kwargs: Any) -> Any:
            breaker.check()
            started, failed = account.enter(), True
            try:
                if faults.armed:
                    faults.point(place)
                result = method(*args, **kwargs)
                failed = False
            finally:
                account.leave(started, failed)
            return Handle(result, gate_of(result) or self, name) if _is_contract(result) else result

        return call_async if inspect.iscoroutinefunction(method) else call

    def close(self) -> None:
        """Take no further calls; those under way are not waited for."""
        self.pool.close()
        if self._own_loop is not None:
            self._own_loop.close()


def _is_contract(value: object) -> bool:
    return hasattr(type(value), CONTRACT_MARK) and not isinstance(value, Handle)


def gate_of(what: object) -> Gate | None:
    """Return the gate that guards a handle, or a method of one, or that a facet names; None for anything else."""
    gate = getattr(what, "gate", None)
    return gate if isinstance(gate, Gate) else None


class Handle:
    """Stands for a plugin's instance, or for a facet that it handed out; see the module's text."""

    def __init__(self, instance: object, gate: Gate, name: str = "") -> None:
        """Stand for ``instance`` behind ``gate``; ``name`` is the method that handed a facet out."""
        self.__dict__.update(_instance=instance, gate=gate, _name=name)

    # Any: whatever the contract has under that name.
    def __getattr__(self, name: str) -> Any:
        """Return a method behind the gate, or any other attribute as it is."""
        value = getattr(self._instance, name)
        if name.startswith("_") or not callable(value):
            return value
        guarded = self.gate.guard(value, f"{self._name}.{name}" if self._name else name)
        guarded.__dict__["gate"] = self.gate
        guarded.__name__ = name
        if is_quick(value):
            quick(guarded)
        self.__dict__[name] = guarded
        return guarded

    def __repr__(self) -> str:
        """Name the plugin."""
        return f"<{self.gate.uri} {self._name}>" if self._name else f"<{self.gate.uri}>"


_shared = Gate("io.windlass.kernel")


def close_shared() -> None:
    """End the threads of calls that belong to no plugin; for the end of a process, which would wait for them."""
    _shared.close()


async def offload(
    function: Callable[P, R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Call a synchronous plugin from the loop, in that plugin's own pool, for at most `DEFAULT_TIMEOUT` seconds.

    A method that its author has marked as `quick` is called here and now, unless one of
    its plugin's was not quick lately.
    A function that is no handle's method runs in a pool that all such calls share.
    Raises DeadlineExceeded; a result that comes later is dropped.
    """
    gate = gate_of(function) or _shared
    if is_quick(function) and gate.may_be_quick():
        with gate.held_to_be_quick():
            return function(*args, **kwargs)
    name = getattr(function, "__name__", "")
    return await offload_within(DEFAULT_TIMEOUT, None, lambda: function(*args, **kwargs), gate, name)


async def offload_within(
    timeout: float | None,
    discard: Callable[[R], object] | None,
    call: Callable[[], R],
    gate: Gate | None = None,
    name: str = "",
) -> R:
    """Run ``call`` as `offload` does, for at most ``timeout`` seconds, None is for as long as it takes.

    When the caller has gone before the result comes, ``discard`` is given the
    result, so that what it holds open is released.
    """
    gate = gate or _shared
    gate.breaker.check()
    job = gate.pool.submit(call, discard)
    timer = None if timeout is None else asyncio.get_running_loop().call_later(timeout, job.expire, name, timeout)
    try:
        return await job.future
    except asyncio.CancelledError:
        job.abandon()
        raise
    finally:
        if timer is not None:
            timer.cancel()
        if job.missed:
            gate.breaker.missed()
        elif not job.future.cancelled():
            gate.breaker.answered()
        # An error's traceback has this frame, and the job has the error: together they would stay until the next full
        # collection, with the request that the call is made with.
        del job


async def offload_each(iterator: Iterator[R], gate: Gate | None, size: int = 100) -> list[R]:
    """Take up to ``size`` further items from a walk of the plugin behind ``gate``; an empty list is its end."""
    return await offload_within(DEFAULT_TIMEOUT, None, lambda: list(islice(iterator, size)), gate, "walk")
