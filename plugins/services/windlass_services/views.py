"""Views of the metadata store that are kept: most calls of a client are in one namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from windlass.contracts.rpc import Call

V = TypeVar("V")

MOST = 64
"""Views that are kept; then all are forgotten."""


class Views(Generic[V]):
    """The views of one kind, by namespace."""

    def __init__(self, make: Callable[[str], V]) -> None:
        """Get those that are not there from ``make``."""
        self._make = make
        self._kept: dict[str, V] = {}

    def of(self, call: Call) -> V:
        """Return the view that a call is about. Raises FailedPrecondition, InvalidArgument as ``make`` does."""
        namespace = call.namespace
        view = self._kept.get(namespace)
        if view is None:
            if len(self._kept) >= MOST:
                self._kept.clear()
            view = self._kept[namespace] = self._make(namespace)
        return view
