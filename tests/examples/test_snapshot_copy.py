"""The tutorial's snapshotter keeps the contract, and stays as short as the tutorial says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import snapshot_copy
from snapshot_copy.snapshotter import CopySnapshotter
from windlass_conformance.snapshots import SnapshotterSuite


class TestCopy(SnapshotterSuite):
    @pytest.fixture
    def snapshotter(self, tmp_path: Path) -> Iterator[CopySnapshotter]:
        snapshotter = CopySnapshotter(tmp_path / "root")
        yield snapshotter
        snapshotter.close()


def test_it_is_under_100_lines_of_code() -> None:
    """All lines of its files that are not empty, a comment or a docstring."""
    total = 0
    for path in Path(snapshot_copy.__path__[0]).rglob("*.py"):
        tree = ast.parse(path.read_text())
        prose = {
            line
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        }
        lines = enumerate(path.read_text().splitlines(), start=1)
        total += sum(1 for n, line in lines if line.strip() and not line.lstrip().startswith("#") and n not in prose)
    assert total < 100
