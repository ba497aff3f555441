"""Which fault points there are, and how the environment arms them; see `windlass.faults`.

Off unless the environment variable ``WINDLASS_FAULTS`` says otherwise when the process begins:
``NAME=TERMS;NAME=TERMS``. Terms are joined by ``->`` and used up one after the other; each is
``[COUNT*]ACTION``, the action one of ``off``, ``error(ERRNO)`` such as ``error(ENOSPC)``,
``delay(MILLISECONDS)`` and ``kill``, which ends the process as kill -9 would. After the last term
a point does nothing. The names are in `POINTS`; every call of a plugin from another
is a point too, ``URI.METHOD``.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections.abc import Iterator
from itertools import chain, repeat

from windlass.faults import Action, armed

VARIABLE = "WINDLASS_FAULTS"

POINTS: dict[str, str] = {
    "content.write": "before bytes are appended to an ingest",
    "content.sync": "before an ingest that is committed is synced",
    "content.rename": "before an ingest is renamed to be a blob",
    "content.renamed": "after that, before its directory is synced",
    "content.committed": "after a blob is durable, before its ingest is removed",
    "content.delete": "before a blob is deleted",
    "metadata.begin": "before a transaction of the metadata database",
    "metadata.commit": "before it is committed",
    "metadata.committed": "after it is committed, before its caller knows",
    "snapshots.place": "before the directory of a new snapshot is renamed into its place",
    "snapshots.placed": "after that, before its row is committed",
    "snapshots.commit": "before a change of a snapshotter's own database is committed",
    "snapshots.committed": "after it is committed, before it is synced",
    "snapshots.delete": "before the directory of a removed snapshot is deleted",
    "gc.claimed": "after objects of a store were claimed for removal, before the first is removed",
    "gc.removed": "after one was removed",
    "gc.conclude": "before the removal is noted in the database",
    "adopt.step": "before each step of `windlassd adopt`, and after the last",
}

_TERM = re.compile(r"(?:(\d{1,9})\*)?(?:(off|kill)|(error)\((\w+)\)|(delay)\((\d{1,7})\))")
_GATE = re.compile(r"[\w.-]+\.v\d+\.[\w.-]+\.\w+")


def arm(text: str) -> None:
    """Arm what ``text`` says, and disarm all else. Raises ValueError, naming what is wrong and what there is."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, _, terms = part.partition("=")
        if name not in POINTS and not _GATE.fullmatch(name):
            raise ValueError(f"there is no fault point {name!r}; there are {', '.join(POINTS)}, and URI.METHOD")
        found[name] = chain.from_iterable([_actions(name, term) for term in terms.split("->")])
    armed.clear()
    armed.update(found)


def arm_from_environment() -> bool:
    """Arm what the environment says, and return whether that is anything. Raises ValueError."""
    text = os.environ.get(VARIABLE, "")
    arm(text)
    return bool(text)


def _actions(name: str, term: str) -> Iterator[Action]:
    match = _TERM.fullmatch(term.strip())
    if match is None:
        raise ValueError(f"fault {name}={term!r} is none of off, error(ERRNO), delay(MILLISECONDS), kill, or COUNT*one")
    count, word, _, code, _, milliseconds = match.groups()
    return repeat(_action(name, word, code, milliseconds), int(count or 1))


def _action(name: str, word: str | None, code: str | None, milliseconds: str | None) -> Action:
    if milliseconds is not None:
        return lambda: time.sleep(int(milliseconds) / 1000)
    if code is not None:
        number = getattr(errno, code, None)
        if not isinstance(number, int):
            raise ValueError(f"fault {name}: {code!r} is not an error of Linux such as ENOSPC or EIO")
        return lambda: _fail(name, number)
    return _die if word == "kill" else _nothing


def _nothing() -> None:
    """Go on."""


def _fail(name: str, number: int) -> None:
    raise OSError(number, f"{os.strerror(number)} (fault {name})")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # the signal is on its way
