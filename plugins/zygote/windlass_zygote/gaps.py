"""Fills the gaps between a process's small objects, so that the children that it forks need not copy its pages.

Python puts a new object where there is room for one of its size. After the imports there is room on hundreds of
pages that are otherwise full, and a child that makes objects would get a copy of each such page: 40 KB or more in every
shim. With the gaps filled, what a child makes goes to pages that are only its own.
"""

from __future__ import annotations

import os
import sys

STDERR = 2
MAX_STATISTICS = 1 << 16
COLUMNS = 5
"""Size class, size, pools, blocks in use, blocks that are free in pools which are in use."""

BYTES_HEADER = 33
"""What a bytes object takes that is empty; smaller ones are made of other types."""

_fillers: list[list[object]] = []
"""Objects that only take room."""


def fill() -> None:
    """Make an object for each gap; they stay as long as the process."""
    for size, count in found():
        _fillers.append([filler(size, number) for number in range(count)])


def filler(size: int, number: int) -> object:
    """Return a new object of a size that Python allocates: a multiple of 16."""
    if size > BYTES_HEADER:
        return bytes(size - BYTES_HEADER)
    return complex(number, 1) if size > sys.getsizeof(object()) else object()


def found() -> list[tuple[int, int]]:
    """Return sizes and how many gaps of each there are; nothing where Python does not allocate by itself."""
    return [
        (int(words[1]), int(words[-1]))
        for words in map(bytes.split, statistics().splitlines())
        if len(words) == COLUMNS and all(word.isdigit() for word in words)
    ]


def statistics() -> bytes:
    """Return what Python says of its allocator, for which it has only standard error."""
    file, stderr = os.memfd_create("statistics"), os.dup(STDERR)
    try:
        os.dup2(file, STDERR)
        sys._debugmallocstats()
    finally:
        os.dup2(stderr, STDERR)
        os.close(stderr)
    text = os.pread(file, MAX_STATISTICS, 0)
    os.close(file)
    return text
