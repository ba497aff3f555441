"""The blockfile snapshotter keeps the contract, with files on real loop devices."""

from __future__ import annotations

import pytest
from snapshot_blockfile.conftest import needs_loop

from windlass_conformance.snapshots import SnapshotterSuite
from windlass_snapshot_blockfile.snapshotter import BlockfileSnapshotter

pytestmark = needs_loop


class TestBlockfile(SnapshotterSuite):
    @pytest.fixture
    def snapshotter(self, opened: BlockfileSnapshotter) -> BlockfileSnapshotter:
        return opened
