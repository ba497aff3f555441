"""The native snapshotter keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass_conformance.snapshots import SnapshotterSuite
from windlass_snapshot_native.snapshotter import NativeSnapshotter


class TestNative(SnapshotterSuite):
    @pytest.fixture
    def snapshotter(self, tmp_path: Path) -> Iterator[NativeSnapshotter]:
        snapshotter = NativeSnapshotter(tmp_path / "root")
        yield snapshotter
        snapshotter.close()
