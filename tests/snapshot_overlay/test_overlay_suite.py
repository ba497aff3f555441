"""The overlayfs snapshotter keeps the contract."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass_conformance.snapshots import SnapshotterSuite
from windlass_snapshot_overlay.layers import Features
from windlass_snapshot_overlay.probe import probe
from windlass_snapshot_overlay.snapshotter import OverlaySnapshotter


class TestOverlay(SnapshotterSuite):
    @pytest.fixture
    def snapshotter(self, tmp_path: Path) -> Iterator[OverlaySnapshotter]:
        root = tmp_path / "root"
        snapshotter = OverlaySnapshotter(root, probe(root) if os.geteuid() == 0 else Features())
        yield snapshotter
        snapshotter.close()
