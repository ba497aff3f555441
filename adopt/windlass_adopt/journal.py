"""The journal of an adoption, `ROOT/adoption`: what is to be done, written before the first of it is.

While `unfinished` is there, neither a daemon nor anything else may use the root; `done` says how to give all of it
back. A file is written under another name and renamed, so each is there whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from windlass import faults
from windlass.errors import DataLoss
from windlass_adopt import steps
from windlass_adopt.steps import AnyStep

DIRECTORY = "adoption"
UNFINISHED, DONE = "unfinished", "done"
FORWARD, BACK = "adopt", "back"


@dataclass(frozen=True)
class Journal:
    """Where from and what; ``direction`` is whether it is being done or undone."""

    source: str
    source_state: str
    steps: tuple[AnyStep, ...]
    direction: str = FORWARD


class Journals:
    """The journal of one Windlass root."""

    def __init__(self, root: Path) -> None:
        """Look below ``root``."""
        self.directory = root / DIRECTORY
        self._unfinished = self.directory / UNFINISHED
        self._done = self.directory / DONE

    def unfinished(self) -> Journal | None:
        """Return what was begun and not finished. Raises DataLoss."""
        return _read(self._unfinished)

    def done(self) -> Journal | None:
        """Return what was adopted. Raises DataLoss."""
        return _read(self._done)

    def begin(self, journal: Journal) -> None:
        """Note, before the first step, what will be done; on disk when this returns. Raises OSError."""
        document = {
            "version": 1,
            "direction": journal.direction,
            "source": journal.source,
            "source_state": journal.source_state,
            "steps": [steps.dump(step) for step in journal.steps],
        }
        temporary = self._unfinished.with_name(f".{UNFINISHED}")
        with temporary.open("w") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._unfinished)
        self._sync()

    def finish(self) -> None:
        """Note that every step is done."""
        self._unfinished.rename(self._done)
        self._sync()

    def forget(self) -> None:
        """Note that every step is undone."""
        self._done.unlink(missing_ok=True)
        self._unfinished.unlink(missing_ok=True)
        self._sync()

    def _sync(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def do(todo: Sequence[AnyStep]) -> None:
    """Do every step, in order. Raises OSError."""
    for step in todo:
        faults.point("adopt.step")
        step.do()
    faults.point("adopt.step")


def undo(done: Sequence[AnyStep]) -> None:
    """Undo every step, the last one first. Raises OSError."""
    for step in reversed(done):
        faults.point("adopt.step")
        step.undo()
    faults.point("adopt.step")


def _read(path: Path) -> Journal | None:
    try:
        document = json.loads(path.read_bytes())
        known = [steps.load(each) for each in document["steps"]]
        return Journal(document["source"], document["source_state"], tuple(known), document["direction"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataLoss(f"the journal {path} is damaged: {error}; restore it from a backup") from None
