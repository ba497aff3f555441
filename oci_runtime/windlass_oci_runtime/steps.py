"""Runs the steps of a process that is being made; each has a name, for the error."""

from __future__ import annotations

import os

from windlass_oci_runtime import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    Steps = Iterator[tuple[str, Callable[[], object]]]


def run(steps: Steps, pipe: int) -> NoReturn:
    """Do every step; the last one executes the program. A failure goes into ``pipe``, and the process ends."""
    try:
        attempt(steps, pipe)
    finally:
        # Whatever happens: the caller's frames are the runtime's.
        os._exit(1)


def attempt(steps: Steps, pipe: int) -> None:
    """Do every step, up to the first that fails, which goes into ``pipe``."""
    name = ""
    try:
        for step, do in steps:
            name = step
            do()
    except BaseException as error:  # noqa: BLE001 -- a copy of the runtime must not go on with the runtime's work
        report.tell(pipe, name, error)
