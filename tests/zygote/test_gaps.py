"""Filled gaps: what is made afterwards goes to new pages."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the zygote runs on Linux only")

PROGRAM = """
import sys
from windlass_zygote import gaps
made = [bytes(size) for size in range(0, 400, 8) for _ in range(500)]
del made[::2]
before = sum(count for _, count in gaps.found())
gaps.fill()
print(before, sum(count for _, count in gaps.found()))
"""


def test_gaps_are_filled() -> None:
    """Most of them: what fills them begins pages of its own. Standard error stays what it was."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env={**os.environ})
    assert done.stderr == ""
    before, after = map(int, done.stdout.split())
    assert before > 10_000
    assert after < before / 4


def test_each_size_has_a_filler() -> None:
    """Of just that size, or the gap would stay and another be made."""
    from windlass_zygote.gaps import filler

    for size in range(16, 513, 16):
        assert size - 16 < sys.getsizeof(filler(size, 7)) <= size
