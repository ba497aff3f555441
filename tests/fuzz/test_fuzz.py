"""The readers of what strangers send, on kept inputs and on a few mutations of them that are the same every time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.targets import TARGETS

HERE = Path(__file__).parent
SEEDS = HERE / "seeds"


def test_every_target_has_seeds() -> None:
    assert {path.name for path in SEEDS.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_only_declared_errors_are_raised(target: str, tmp_path: Path) -> None:
    """In a process of its own, whose memory is limited, and which ends when one input takes too long."""
    command = [sys.executable, str(HERE / "fuzz.py"), target, "--runs", "1500", "--seed", "20240501"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "nothing found" in done.stdout


def test_what_fails_is_kept(tmp_path: Path) -> None:
    """The input is written down, and the process fails."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from fuzz import fuzz, targets; "
        "targets.TARGETS['names'] = lambda data: 1 / 0; fuzz.run('names', 5, 1, 1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(HERE.parent)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert [path.name[:11] for path in tmp_path.iterdir()] == ["fuzz-names-"]
