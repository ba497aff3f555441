"""The wire is containerd's: generated modules fit their sources, and the sources fit containerd's descriptors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from house import TREE

GENERATE = TREE / "api" / "generate.py"
CHECK = TREE.parent / "shared" / "wire" / "check_wire.py"


def run(*command: str | Path) -> str:
    """Run a Python program; what it printed is returned, or shown when it fails."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(autouse=True)
def _generators() -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed; pip install -e 'api[generate]'")


def test_generated_modules_are_those_of_the_sources() -> None:
    """Nobody has edited a generated file, or forgotten to generate."""
    run(GENERATE, "--check")


@pytest.mark.skipif(not CHECK.exists(), reason=f"the tables of containerd's wire are not at {CHECK.parent}")
def test_the_wire_is_containerds(tmp_path: Path) -> None:
    """Every service, method, message and field has containerd's name and number, and there are no others."""
    descriptors = tmp_path / "out.fds"
    run(GENERATE, "--descriptor-set", descriptors)
    last = run(CHECK, "--strict", descriptors).splitlines()[-1]
    assert last.endswith(" 0 failed"), last
    assert int(last.split()[0]) > 1000
