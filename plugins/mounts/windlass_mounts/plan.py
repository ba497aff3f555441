"""Decides what of a list of mounts is to be made by us, and what is left for the caller (docs/containerd 3.19).

Pure: nothing here touches the machine.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from windlass.contracts.mounts import Mount
from windlass.errors import InvalidArgument
from windlass.records import dataclass

TRANSFORMATIONS = ("format", "mkdir", "mkfs")
MAX_MOUNTS = 255


@dataclass(frozen=True, slots=True)
class Step:
    """A mount without the prefixes of its type, which are the transformations to apply first."""

    transformations: tuple[str, ...]
    mount: Mount
    handled: bool
    """There is a handler for its type."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order; the first ``made`` mounts are ours to make, the others the caller's."""

    steps: tuple[Step, ...]
    made: int
    bind_last: bool
    """The caller gets a bind of our last mount, as nothing else is left for it."""

    @property
    def needed(self) -> bool:
        """Whether the caller cannot do all of this alone."""
        return self.made > 0 or any(step.transformations for step in self.steps)


def plan(
    mounts: Sequence[Mount], handled: Container[str], allowed: Sequence[str] = (), temporary: bool = False
) -> Plan:
    """Return how to activate ``mounts``, where there are handlers for the types in ``handled``."""
    if len(mounts) > MAX_MOUNTS:
        raise InvalidArgument(f"{len(mounts)} mounts are too many, the limit is {MAX_MOUNTS}")
    steps = tuple(_step(mount, handled, allowed) for mount in mounts)
    made = 0
    for index, step in enumerate(steps):
        if step.transformations:
            made = max(made, index)
        if step.handled:
            made = index + 1
    if temporary:
        made = len(steps)
    return Plan(steps, made, bool(steps) and made == len(steps))


def _step(mount: Mount, handled: Container[str], allowed: Sequence[str]) -> Step:
    transformations: list[str] = []
    left = mount.type
    while not is_allowed(left, allowed):
        prefix, slash, rest = left.partition("/")
        if not slash or prefix not in TRANSFORMATIONS:
            break
        if not rest:
            raise InvalidArgument(f"mount type {mount.type[:80]!r} is transformations alone")
        transformations.append(prefix)
        left = rest
    kept = left in handled and not is_allowed(left, allowed)
    return Step(tuple(transformations), replace(mount, type=left), kept)


def is_allowed(kind: str, allowed: Sequence[str]) -> bool:
    """Return whether the caller makes mounts of a type itself, as it is spelled or by ``<prefix>/*``."""
    return any(kind == each or (each.endswith("/*") and kind.startswith(each[:-1])) for each in allowed)
