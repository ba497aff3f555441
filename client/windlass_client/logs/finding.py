"""Finds the log of a container."""

from __future__ import annotations

from windlass.errors import FailedPrecondition
from windlass_client.datadir import DataDirectory, Place
from windlass_client.lifecycle.asked import Asked
from windlass_client.logs.reading import Log


def log_of(where: Place, asked: Asked) -> Log:
    """Return a container's log. Raises FailedPrecondition if it keeps none."""
    if asked.log_uri:
        raise FailedPrecondition(f"container {asked.name} has no log: its output goes to {asked.log_uri}")
    if not asked.log:
        raise FailedPrecondition(f"container {asked.name} has no log: another client created it")
    if asked.log.driver == "none":
        raise FailedPrecondition(f"container {asked.name} has no log: it was created with --log-driver none")
    return Log(DataDirectory.of(where).log(asked.id))
