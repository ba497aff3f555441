"""What authors mark classes and methods with: contracts, quick methods, and the steps that hooks take part in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from windlass.records import dataclass

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., object])

CONTRACT_MARK = "__windlass_contract__"
QUICK_MARK = "__windlass_quick__"
STEP_MARK = "__windlass_step__"

OPEN = "open"
CLOSED = "closed"


def contract(protocol: type[C]) -> type[C]:
    """Mark a Protocol as a contract: calls of its methods pass the gate.

    A method that returns an instance of a contract hands out a gated facet:
    counted under the same plugin, or under the one whose ``gate`` the facet
    names as its own because that plugin does the work.
    """
    setattr(protocol, CONTRACT_MARK, True)
    return protocol


def quick(method: C) -> C:
    """Mark an implementation's method as one that the event loop may call itself, without a thread.

    That is its author's word that it answers from memory, or from files that this
    host caches, within some 100 µs and never waits for a lock, a peer or a
    `fsync`: whatever it waits for, every client of the daemon waits for.

    Of a handler of calls (`windlass.contracts.rpc`) it says the same, up to its first ``await`` of anything that
    is not ready; up to there it may have no task (`asyncio.current_task`), so it uses no timeout or task group.
    """
    setattr(method, QUICK_MARK, True)
    return method


def is_quick(method: object) -> bool:
    """Return whether a method is marked as `quick`."""
    return getattr(method, QUICK_MARK, False) is True


@dataclass(frozen=True, slots=True)
class Step:
    """How a step is called; see `step`."""

    policy: str
    deadline: float
    firstresult: bool


def step(policy: str, *, deadline: float = 10.0, firstresult: bool = False) -> Callable[[F], F]:
    """Mark a method of a contract's class of steps as a step in which hook plugins may take part.

    ``policy`` says what happens when a participant fails: OPEN, the kernel logs it and asks the others; CLOSED, the
    step fails. Each participant has ``deadline`` seconds. ``firstresult`` is pluggy's: the first answer that is not
    None ends the call.
    """

    def mark(function: F) -> F:
        function.__dict__[STEP_MARK] = Step(policy, deadline, firstresult)
        return function

    return mark


def step_of(function: object) -> Step | None:
    """Return how a step is called, or None for a function that is not marked as one."""
    found = getattr(function, STEP_MARK, None)
    return found if isinstance(found, Step) else None
