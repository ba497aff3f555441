"""The suites on what the options name: `pytest --pyargs windlass_conformance --snapshotter unix:///x.sock`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from windlass.content import ContentStore
from windlass.snapshots import Snapshotter
from windlass_conformance import peers
from windlass_conformance.content import ContentSuite
from windlass_conformance.snapshots import SnapshotterSuite


class TestSnapshotter(SnapshotterSuite):
    """The snapshotter of --snapshotter."""

    @pytest.fixture
    def snapshotter(self, pytestconfig: pytest.Config) -> Iterator[Snapshotter]:
        """Give it, empty."""
        name: str = pytestconfig.getoption("--snapshotter")
        with peers.snapshotter(pytestconfig.getoption("--address"), name) as found:
            yield found


class TestContent(ContentSuite):
    """The content store of --content."""

    @pytest.fixture
    def store(self, pytestconfig: pytest.Config) -> Iterator[ContentStore]:
        """Give it, empty."""
        name: str = pytestconfig.getoption("--content")
        with peers.content(pytestconfig.getoption("--address"), name) as found:
            yield found
