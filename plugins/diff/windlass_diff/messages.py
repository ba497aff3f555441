"""What a worker and the daemon send each other, as JSON."""

from __future__ import annotations

from typing import TypedDict


class Request(TypedDict, total=False):
    """What a worker shall do; it works on ``directory``, and mounts are rows of type, source, target and options."""

    directory: str
    mounts: list[list[str]]
    compressed: bool
    processors: list[list[object]]
    sync: bool
    detached: bool
    lower: list[list[str]]
    upper: list[list[str]]
    compression: str
    epoch: int | None


class Result(TypedDict):
    """The layer, without compression."""

    digest: str
    size: int


class Record(TypedDict, total=False):
    """What a worker says: the step that begins or goes on, or an error, or in the end the result."""

    step: str
    error: int
    message: str
    result: Result
