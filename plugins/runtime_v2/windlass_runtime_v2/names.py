"""Names of tasks or sandboxes that must not be given again yet: they are on their way in or out."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator, Mapping

from windlass.errors import AlreadyExists

Key = tuple[str, str]
"""Namespace and ID."""


class Names:
    """Says which names are taken: those that are known, and those that are kept here for a while."""

    def __init__(self, kind: str, known: Container[Key], is_there: str, removed: str, left: Mapping[Key, str]) -> None:
        """Word refusals by ``kind``, by what it means to be ``known``, and by what its removal is called.

        ``left`` says why names are taken of which something is left.
        """
        self._kind = kind
        self._left = left
        self._known = known
        self._is_there = is_there
        self._removed = removed
        self._kept: set[Key] = set()

    @contextlib.contextmanager
    def taken(self, namespace: str, id: str) -> Iterator[None]:
        """Take a name for the length of a creation. Raises AlreadyExists."""
        key = (namespace, id)
        if key in self._left:
            raise AlreadyExists(f"{self._kind} {id}: what an earlier one left cannot be removed yet: {self._left[key]}")
        if key in self._known:
            raise AlreadyExists(f"{self._kind} {id} {self._is_there}")
        if key in self._kept:
            raise AlreadyExists(f"{self._kind} {id} is being created or {self._removed} just now")
        with self.kept(key):
            yield

    @contextlib.contextmanager
    def kept(self, key: Key) -> Iterator[None]:
        """Keep a name until all that goes by it has gone."""
        self._kept.add(key)
        try:
            yield
        finally:
            self._kept.discard(key)
