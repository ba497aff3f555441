"""What other stores have us collect, such as active mounts: found for each collection, discarded after it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from windlass.contracts.metadata import Collectible, Collectibles
from windlass.errors import Error
from windlass_metadata import nodes
from windlass_metadata.cleaner import Cleaner
from windlass_metadata.nodes import Node
from windlass_metadata.trouble import Trouble

logger = logging.getLogger(__name__)


class Outside:
    """The stores outside of the database; each is cleaned in a thread of its own."""

    def __init__(self) -> None:
        """Know no store."""
        self._stores: dict[str, _Store] = {}

    def add(self, kind: str, store: Collectibles) -> None:
        """Look after the objects of a store."""
        self._stores[kind] = _Store(kind, store)

    def found(self) -> list[tuple[str, Collectible]]:
        """Return what is there; nothing of a store that cannot tell."""
        found = []
        for kind, one in self._stores.items():
            try:
                found += [(kind, each) for each in one.store.collectibles()]
                one.trouble.tell("")
            except Error as error:
                one.trouble.tell(str(error))
        return found

    def begin(self, garbage: Iterable[Node]) -> list[Cleaner]:
        """Note what is garbage, and return the cleaners of all stores."""
        for kind, namespace, id in garbage:
            self._stores[kind.removeprefix(nodes.OUTSIDE)].add(namespace, id)
        return [one.cleaner for one in self._stores.values()]


class _Store:
    def __init__(self, kind: str, store: Collectibles) -> None:
        self.store = store
        self.trouble = Trouble(logger, f"finding what of kind {kind} is garbage")
        self.cleaner = Cleaner(f"{kind} store", lambda: bool(self._garbage), self._clean)
        self._garbage: dict[tuple[str, str], None] = {}
        self._guard = threading.Lock()

    def add(self, namespace: str, id: str) -> None:
        with self._guard:
            self._garbage[namespace, id] = None

    def _clean(self, full: bool) -> int:
        """Discard each; what fails is found again by the next collection."""
        with self._guard:
            garbage, self._garbage = self._garbage, {}
        problem: Error | OSError | None = None
        removed = 0
        for namespace, id in garbage:
            try:
                self.store.discard(namespace, id)
                removed += 1
            except (Error, OSError) as error:
                problem = error
        if problem:
            raise problem
        return removed
