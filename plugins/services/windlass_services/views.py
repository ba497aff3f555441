"""Views of the metadata store that are kept: most calls of a client are in one namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from windlass.contracts.rpc import Call

V = TypeVar("V")

MOST = 64
"""Views that are kept; then all are forgotten."""


class Views(Generic[V]):
    """The views of one kind, by what ``make`` takes: a namespace, or more."""

    def __init__(self, make: Callable[..., V]) -> None:
        """Get those that are not there from ``make``."""
        self._make = make
        self._kept: dict[tuple[str, ...], V] = {}

    def of(self, call: Call) -> V:
        """Return the view that a call is about. Raises FailedPrecondition, InvalidArgument as ``make`` does."""
        return self.at(call.namespace)

    def at(self, *key: str) -> V:
        """Return the view that ``make`` gives for ``key``. Raises as `of`."""
        view = self._kept.get(key)
        if view is None:
            if len(self._kept) >= MOST:
                self._kept.clear()
            view = self._kept[key] = self._make(*key)
        return view
