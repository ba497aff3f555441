"""What all containers of a shim share, and what their names may be."""

from __future__ import annotations

from windlass.errors import InvalidArgument
from windlass_shim_runc.loop import Loop
from windlass_shim_runc.publisher import Publisher
from windlass_shim_runc.reaper import Reaper

MAX_IDENTIFIER = 76


def check_identifier(kind: str, value: str) -> None:
    """Raise InvalidArgument for what must not be part of a file name, as `windlass.contracts.values` does."""
    dotted = value.replace("_", ".").replace("-", ".")
    words = dotted.replace(".", "")
    # No word is empty: the borders of two separators, or of one and an end, meet.
    if len(value) > MAX_IDENTIFIER or ".." in f".{dotted}." or not (words.isascii() and words.isalnum()):
        raise InvalidArgument(f"{kind} {value[:76]!r} is not a valid identifier")


class Shim:
    """What all containers of a shim share."""

    __slots__ = ("loop", "namespace", "pid", "program", "publisher", "reaper")

    def __init__(
        self, loop: Loop, reaper: Reaper, publisher: Publisher, namespace: str, pid: int, program: str = "runc"
    ) -> None:
        self.loop = loop
        self.reaper = reaper
        self.publisher = publisher
        self.namespace = namespace
        self.program = program
        """The OCI runtime for tasks whose options name none."""
        self.pid = pid
        """The keeper's, by which the shim is known; a worker has another."""
