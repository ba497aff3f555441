"""The btrfs snapshotter keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass_conformance.snapshots import SnapshotterSuite
from windlass_snapshot_btrfs.snapshotter import BtrfsSnapshotter


class TestBtrfs(SnapshotterSuite):
    @pytest.fixture
    def snapshotter(self, root: Path) -> Iterator[BtrfsSnapshotter]:
        snapshotter = BtrfsSnapshotter(root)
        yield snapshotter
        snapshotter.close()
