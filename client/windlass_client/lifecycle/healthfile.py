"""A container's health on disk: the program that finds it out writes it, `ps` and `inspect` read it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from windlass_client import datadir

if TYPE_CHECKING:
    from windlass_client.datadir import DataDirectory

NAME = "health.json"
Health = Mapping[str, object]


def read(data: DataDirectory, id: str, pid: int) -> Health:
    """Return the health of the task whose first process is ``pid``; ``starting`` until something is known."""
    try:
        found = json.loads((data.container(id) / NAME).read_text())
        if found["Pid"] == pid:
            return {key: found[key] for key in ("Status", "FailingStreak", "Log")}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"Status": "starting", "FailingStreak": 0, "Log": []}


def write(data: DataDirectory, id: str, pid: int, status: str, streak: int, log: Sequence[Health]) -> None:
    """Write it."""
    document = {"Pid": pid, "Status": status, "FailingStreak": streak, "Log": list(log)}
    datadir.write(data.container(id) / NAME, json.dumps(document))
