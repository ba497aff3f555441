"""Which containers of a service stay, which are made anew, and which go: decided from what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windlass_client.compose.engine import Member

DIVERGED, ALWAYS, NEVER = "diverged", "always", "never"
"""When a container that exists is made anew."""


@dataclass(frozen=True)
class Steps:
    """What is to be done about the containers of a service."""

    keep: tuple[Member, ...] = ()
    recreate: tuple[Member, ...] = ()
    create: tuple[int, ...] = ()
    """Numbers of new ones."""
    remove: tuple[Member, ...] = ()


def plan(members: Sequence[Member], count: int, hash: str, digest: str, recreate: str = DIVERGED) -> Steps:
    """Return the steps to ``count`` containers of what a service is now; those with low numbers stay."""
    ordered = sorted(members, key=lambda each: each.number)
    stay, leave = ordered[:count], ordered[count:]
    anew = tuple(each for each in stay if _is_due(each, hash, digest, recreate))
    taken = {each.number for each in stay}
    free = (number for number in range(1, count + len(taken) + 1) if number not in taken)
    new = tuple(number for number, _ in zip(free, range(count - len(stay)), strict=False))
    return Steps(tuple(each for each in stay if each not in anew), anew, new, tuple(leave))


def _is_due(member: Member, hash: str, digest: str, recreate: str) -> bool:
    if recreate == NEVER:
        return False
    return recreate == ALWAYS or not member.made_from(hash, digest)
