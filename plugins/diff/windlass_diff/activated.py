"""Has the mount manager make those mounts that a worker cannot, for as long as it works."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from windlass.contracts.activations import ActivateOptions, MountManager
from windlass.contracts.mounts import Mount
from windlass.errors import Error

logger = logging.getLogger(__name__)

NAMESPACE = "windlass-differ"
"""Of our activations, as the content that a layer comes from does not tell its namespace."""
KEPT = {"containerd.io/gc.root": "a layer is being applied or made"}


class ForDiffs:
    """Activations that last as long as one call."""

    def __init__(self, manager: MountManager | None) -> None:
        """Remove what a daemon that died has left; without a mount manager all mounts are the worker's."""
        self._manager = manager
        if manager is not None:
            for left in manager.list(NAMESPACE):
                self._deactivate(manager, left.name)

    @contextmanager
    def mounts(self, mounts: Sequence[Mount]) -> Iterator[Sequence[Mount]]:
        """Yield mounts that a worker can make."""
        if self._manager is None or not self._manager.handles(mounts):
            yield mounts
            return
        name = secrets.token_hex(16)
        activation = self._manager.activate(NAMESPACE, name, mounts, ActivateOptions(labels=KEPT))
        try:
            yield activation.system
        finally:
            self._deactivate(self._manager, name)

    def _deactivate(self, manager: MountManager, name: str) -> None:
        try:
            manager.deactivate(NAMESPACE, name)
        except Error as error:
            logger.warning("mounts of a differ stay until the next start: %s", error)
