"""What the files of control groups said before a change, so that one that fails leaves all as it was."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RESETS = {
    "io.max": "rbps=max wbps=max riops=max wiops=max",
    "io.bfq.weight": "default",
    "rdma.max": "hca_handle=max hca_object=max",
}
"""What a device that a file does not list has; in files of version 1 it is 0."""


class Journal:
    """Values in the order in which they were replaced."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before: list[tuple[str, str]] = []

    def keep(self, path: str, text: str, new: str) -> None:
        """Remember ``text``, which a file says, before ``new`` is written to it."""
        self._before.append((path, previous(os.path.basename(path), text, new)))

    def undo(self, write: Callable[[str, str], None]) -> None:
        """Write all of it again, the last first, so that each state in between is one that was there already."""
        for path, text in reversed(self._before):
            try:
                write(path, text)
            except OSError:
                continue  # the caller's failure is the one that is told


def previous(file: str, text: str, new: str) -> str:
    """Return what to write to a file that says ``text`` to make up for ``new``."""
    if file == "memory.oom_control":
        return dict(line.split() for line in text.splitlines())["oom_kill_disable"]
    key, _, rest = new.partition(" ")
    if file == "cpu.max" or not rest:
        # io.weight and io.bfq.weight begin with "default 100".
        return text.splitlines()[0].removeprefix("default ") if text.strip() else "\n"
    # A line for each device or interface.
    lines = [line for line in text.splitlines() if line.partition(" ")[0] == key]
    return lines[0] if lines else f"{key} {RESETS.get(file, '0')}"
