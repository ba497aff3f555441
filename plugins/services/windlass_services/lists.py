"""Long lists become messages piece by piece, and the loop turns to others between two pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

PIECE = 200
"""Half a millisecond's work."""

V = TypeVar("V")
M_contra = TypeVar("M_contra", contravariant=True)


class Field(Protocol[M_contra]):
    """A repeated field of messages."""

    def extend(self, messages: Iterable[M_contra], /) -> None:
        """Append ``messages``."""
        ...


async def fill(field: Field[M_contra], values: Sequence[V], translate: Callable[[V], M_contra]) -> None:
    """Append the messages of ``values`` to a field."""
    for start in range(0, len(values), PIECE):
        if start:
            await asyncio.sleep(0)
        field.extend(map(translate, values[start : start + PIECE]))
