"""The times of directories: set for all of them, in memory that a layer cannot make large."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from windlass.errors import ResourceExhausted
from windlass_diff import times
from windlass_diff.times import DirectoryTimes

THEN = 1_600_000_000
"""The time of every member."""


def test_more_directories_than_are_remembered_by_path(apply: Any, members: Any, root: Path) -> None:
    """Each gets its time, whichever way it is found again; the last entry for one counts."""
    layer, deep = members(), "/".join(["d" * 250] * 15)
    count = times.NEAR // (len(deep) + times.ENTRY) + 500
    for number in range(15):
        layer.dir(deep[: 251 * (number + 1) - 1])
    for number in range(count):
        layer.dir(f"{deep}/{number}")
    layer.dir(f"{deep}/{count - 1}", mtime=THEN + 5).file(f"{deep}/{count - 2}/f").file("d/f")

    apply(layer.bytes(), root)

    inside = root / deep
    last = {f"{count - 1}": THEN + 5}
    assert {path.name: int(path.stat().st_mtime) for path in inside.iterdir()} == {
        f"{number}": last.get(f"{number}", THEN) for number in range(count)
    }
    assert {int((root / deep[: 251 * (number + 1) - 1]).stat().st_mtime) for number in range(15)} == {THEN}
    assert int((root / "d").stat().st_mtime) != THEN


@pytest.mark.parametrize("length", [8, 4000])
def test_many_directories_take_little_memory(length: int) -> None:
    """However long their names are: a layer of 250 KB can name half a million."""
    tracemalloc.start()
    try:
        found = DirectoryTimes()
        for number in range(100_000):
            found.remember(b"/%0*d" % (length, number), number, (number << 32, number << 32))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size < 16 << 20


def test_there_is_a_limit() -> None:
    """More than two million are refused."""
    found = DirectoryTimes(near=0)
    for number in range(times.MOST):
        found.remember(b"/", number, (0, 0))

    with pytest.raises(ResourceExhausted, match="more than 2097152 directories"):
        found.remember(b"/", 0, (0, 0))
