"""The gate: the boundary that every call from one plugin to another passes.

A lookup hands out a handle instead of the instance. A handle has the instance's
methods; each call is counted and timed, refused at once while the plugin's
breaker is open, and, when the loop makes it through `offload`, runs in the
plugin's own bounded pool under a deadline. A sick plugin so delays its own
callers, for a bounded time, and no others.

Which thread does what: the loop alone makes jobs, runs their timers and tells the
breaker how they ended. Guarded methods run in any thread; what they share, an
account and the breaker's state, is behind a lock or may be a moment old.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import field
from functools import partial
from itertools import islice
from types import GeneratorType
from typing import ParamSpec, TypeVar

from windlass import faults, tracing
from windlass.errors import Unavailable
from windlass.marks import CONTRACT_MARK, is_quick, quick
from windlass.ownloop import OwnLoop, only_exceptions
from windlass.pool import Pool
from windlass.records import dataclass

P = ParamSpec("P")
R = TypeVar("R")

Async = Callable[P, Coroutine[None, None, R]]

POOL_SIZE = 16
DEADLINE = 60.0
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

    # No lock: only the loop counts. Threads that call `check` in the same moment at the end of a pause may pass
    # together, which costs a sick plugin a few calls more.

    def __init__(self, uri: str) -> None:
        """Start closed."""
        self._uri = uri
        self._misses = 0
        self._pause = FIRST_PAUSE
        self._open_until = 0.0

    @property
    def left(self) -> float:
        """The seconds until it lets a call through, 0 while it is closed."""
        return 0.0 if self._misses < MISSES_TO_OPEN else max(0.0, self._open_until - time.monotonic())

    def check(self) -> None:
        """Raise Unavailable while the breaker is open."""
        if self._misses < MISSES_TO_OPEN:
            return
        if (left := self.left) > 0:
            raise Unavailable(f"{self._uri} has missed {self._misses} deadlines in a row; tried again in {left:.1f} s")
        self._open_until = time.monotonic() + self._pause

    def missed(self) -> None:
        """Count a deadline that was missed."""
        self._misses += 1
        if self._misses >= MISSES_TO_OPEN:
            self._open_until = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def answered(self) -> None:
        """Count a call that ended in time, well or not."""
        self._misses = 0
        self._pause = FIRST_PAUSE


class Gate:
    """The boundary around one plugin's instance: accounts, breaker, pool, and a loop if its type wants that."""

    def __init__(self, uri: str, pool_size: int = POOL_SIZE, own_loop: bool = False) -> None:
        """Guard the plugin ``uri``; threads start when they are needed. ``own_loop``: see `PluginType.own_loop`."""
        self.uri = uri
        self.closed = False
        self.accounts: dict[str, Account] = {}
        self.breaker = Breaker(uri)
        self.pool = Pool(uri, pool_size)
        self._own_loop = OwnLoop(uri) if own_loop else None
        self.slow_until = 0.0
        """Until then the loop calls no quick method itself."""

    def guard(self, method: Callable[P, R], name: str) -> Callable[P, R]:
        """Return ``method`` with every call counted, timed and subject to the breaker; `offload` knows its gate."""
        account = self.accounts.setdefault(name, Account(name))
        guarded = self._guard_sync(method, account)
        if inspect.iscoroutinefunction(method):
            guarded = self._guard_async(method, account)  # type: ignore[assignment] # R is a coroutine
        vars(guarded)["gate"] = self
        guarded.__name__ = name.rpartition(".")[2]
        return quick(guarded) if is_quick(method) else guarded

    def _guard_sync(self, method: Callable[P, R], account: Account) -> Callable[P, R]:
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if threading.get_ident() not in self.pool.threads:  # else `offload` has asked, before it took a thread
                self.breaker.check()
            started, failed = account.enter(), True
            try:
                if faults.armed:
                    faults.point(f"{self.uri}.{account.method}")
                if tracing.recorder is None:
                    result = method(*args, **kwargs)
                else:
                    with tracing.span(f"{self.uri}.{account.method}"):
                        result = method(*args, **kwargs)
                failed = False
            finally:
                account.leave(started, failed)
            return self._keep(result, account.method)

        return call

    def _guard_async(self, method: Async[P, R], account: Account) -> Async[P, R]:
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            self.breaker.check()
            started, failed = account.enter(), True
            try:
                if faults.armed:
                    await asyncio.to_thread(faults.point, f"{self.uri}.{account.method}")
                with tracing.span(f"{self.uri}.{account.method}") if tracing.recorder else tracing.NOTHING:
                    if self._own_loop is None:
                        result = await only_exceptions(method(*args, **kwargs))
                    else:
                        result = await self._own_loop.run(lambda: only_exceptions(method(*args, **kwargs)))
                failed = False
                return result
            finally:
                account.leave(started, failed)

        return call

    def _keep(self, result: R, name: str) -> R:
        """Return a result whose methods pass this gate too, if it is a contract's or a walk."""
        if hasattr(type(result), CONTRACT_MARK) and not isinstance(result, Handle):
            return Handle(result, gate_of(result) or self, name)  # type: ignore[return-value] # it has R's methods
        if isinstance(result, GeneratorType):
            return Walk(result, self)  # type: ignore[return-value] # to its callers R is an Iterator
        return result

    def close(self) -> None:
        """Take no further calls; those under way are not waited for."""
        self.closed = True
        self.pool.close()
        if self._own_loop is not None:
            self._own_loop.close()


def gate_of(what: object) -> Gate | None:
    """Return the gate of a handle, of a method or walk of one, or that a facet names; None for anything else."""
    gate = getattr(what, "gate", None)
    return gate if isinstance(gate, Gate) else None


class Handle:
    """Stands for a plugin's instance, or for a facet that it handed out; see the module's text."""

    def __init__(self, instance: object, gate: Gate, name: str = "") -> None:
        """Stand for ``instance`` behind ``gate``; ``name`` is the method that handed a facet out."""
        self._instance = instance
        self.gate = gate
        self._name = name

    def __getattr__(self, name: str) -> object:
        """Return a method behind the gate, or any other attribute as it is."""
        value = getattr(self._instance, name)
        if name.startswith("_") or not callable(value):
            return value
        self.__dict__[name] = guarded = self.gate.guard(value, f"{self._name}.{name}" if self._name else name)
        return guarded

    def __repr__(self) -> str:
        """Name the plugin."""
        return f"<{self.gate.uri} {self._name}>" if self._name else f"<{self.gate.uri}>"


class Walk(Iterator[R]):
    """The items of a plugin's generator; `take` fetches many of them in one call of the plugin."""

    def __init__(self, items: Iterator[R], gate: Gate) -> None:
        """Go through ``items``, which the plugin behind ``gate`` makes."""
        self._items = items
        self.gate = gate

    def __next__(self) -> R:
        """Return the next item."""
        return next(self._items)

    def __iter__(self) -> Iterator[R]:
        """Return the generator itself, which is faster."""
        return self._items


def take(walk: Iterator[R], size: int = 100) -> list[R]:
    """Return up to ``size`` further items of a walk; an empty list is its end."""
    return list(islice(walk, size))


_shared = Gate("io.windlass.kernel")


def offload(method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, R]:
    """Call a synchronous method of a plugin from the loop, for at most `DEADLINE` seconds.

    With its arguments, as in ``await offload(view.info, digest)``; see `offloaded` for other limits.
    """
    return offloaded(method)(*args, **kwargs)


def offloaded(
    method: Callable[P, R], *, deadline: float | None = DEADLINE, discard: Callable[[R], object] | None = None
) -> Callable[P, Coroutine[None, None, R]]:
    """Return a coroutine function that makes a synchronous call in the plugin's own pool; without a deadline if None.

    A function of yours that calls a plugin several times belongs to the plugin of
    the first argument that is a handle, or a walk; one without such an argument runs
    in a pool that all these share. A method that its author has marked as `quick` is
    called here and now, unless one of its plugin's was not quick lately.

    It raises DeadlineExceeded. A result that comes after the deadline, or after the caller
    was cancelled, is given to ``discard``, so that what it holds open is released.
    """

    # two steps, since PEP 612 lets no argument of ours stand among those of the method
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        gate = gate_of(method) or next(filter(None, map(gate_of, args)), _shared)
        if is_quick(method) and time.monotonic() >= gate.slow_until:
            begun = time.monotonic()
            try:
                return method(*args, **kwargs)
            finally:
                # one that was not sends all of its plugin's to the pool: for a second, as the processor may be busy,
                # and for longer if the next is slow as well, as a disk may hang
                if (now := time.monotonic()) - begun > QUICK_LIMIT:
                    gate.slow_until = now + (SLOW_PAUSE if now < gate.slow_until + FIRST_PAUSE else FIRST_PAUSE)
        gate.breaker.check()
        job = gate.pool.submit(partial(method, *args, **kwargs), discard)
        timer = None if deadline is None else job.future.get_loop().call_later(deadline, job.expire, method, deadline)
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
            # An error's traceback has this frame, and the job has the error: together they would stay until the next
            # full collection, with the request that the call is made with.
            del job

    return call
