"""The conformance suites, on the views that a namespace has of the stores behind it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from metadata.conftest import World
from metadata.memory_content import MemoryContent

from windlass.contracts.content import ContentStore
from windlass.contracts.metadata import Metadata
from windlass.contracts.snapshots import Snapshotter
from windlass_conformance.content import ContentSuite
from windlass_conformance.metadata import MetadataSuite
from windlass_conformance.snapshots import SnapshotterSuite


class TestMemoryContent(ContentSuite):
    """The store in memory is a content store itself."""

    @pytest.fixture
    def store(self) -> ContentStore:
        return MemoryContent()


class TestContentView(ContentSuite):
    """A namespace's view of it, under both sharing policies."""

    @pytest.fixture(params=["shared", "isolated"])
    def store(self, request: pytest.FixtureRequest, make_world: Callable[..., World]) -> ContentStore:
        return make_world(shared=request.param == "shared").open().content("suite")


class TestLeasedContentView(ContentSuite):
    """A lease changes nothing that a client sees."""

    @pytest.fixture
    def store(self, world: World) -> ContentStore:
        metadata = world.open()
        metadata.leases("suite").create("lease")
        return metadata.content("suite", "lease")


class TestLocalContentView(ContentSuite):
    """A namespace's view of files."""

    @pytest.fixture
    def store(self, make_world: Callable[..., World], tmp_path: Path) -> ContentStore:
        local = pytest.importorskip("windlass_content.store").LocalStore(tmp_path / "content")
        return make_world(content=local).open().content("suite")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
class TestSnapshotterView(SnapshotterSuite):
    """A namespace's view of the native snapshotter."""

    @pytest.fixture
    def snapshotter(self, make_world: Callable[..., World], tmp_path: Path) -> Iterator[Snapshotter]:
        native = pytest.importorskip("windlass_snapshot_native.snapshotter").NativeSnapshotter(tmp_path / "native")
        yield make_world(snapshotter=native).open().snapshotter("memory", "suite")
        native.close()


class TestMetadata(MetadataSuite):
    """All that a namespace keeps, over stores in memory."""

    @pytest.fixture(params=["shared", "isolated"])
    def metadata(self, request: pytest.FixtureRequest, make_world: Callable[..., World]) -> Metadata:
        return make_world(shared=request.param == "shared").open()
