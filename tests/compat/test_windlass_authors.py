"""What authors of plugins get: packages that pass their suites as generated, and a check that finds what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from windlass_client.scaffold.kinds import KINDS, Kind
from windlass_client.scaffold.write import write

ROOTED = {"differ", "metadata", "mount-handler", "runtime", "snapshotter"}


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_it_passes_its_suite_as_generated(kind: Kind, tmp_path: Path) -> None:
    """All cases pass; none is skipped when root runs them."""
    if kind.name in ROOTED and os.geteuid() != 0:
        pytest.skip("the suite needs root")
    made = write(kind, "my-own", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment(made), cwd=made)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
