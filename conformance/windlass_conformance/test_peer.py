"""The suites on what the options name: `pytest --pyargs windlass_conformance --snapshotter unix:///x.sock`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from windlass.contracts.content import ContentStore
from windlass.contracts.diff import Differ
from windlass.contracts.metadata import Metadata
from windlass.contracts.snapshots import Snapshotter
from windlass_conformance import peers
from windlass_conformance.content import ContentSuite
from windlass_conformance.differs import DifferSuite
from windlass_conformance.events import ExchangeSuite, Make
from windlass_conformance.metadata import MetadataSuite
from windlass_conformance.remote_metadata import RemoteMetadata
from windlass_conformance.runtimes import Runtime, RuntimeSuite
from windlass_conformance.sandbox_controllers import Make as MakeController
from windlass_conformance.sandbox_controllers import SandboxControllerSuite
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


class TestDiffer(DifferSuite):
    """The differ of --differ."""

    @pytest.fixture
    def both(self, pytestconfig: pytest.Config) -> Iterator[tuple[Differ, ContentStore]]:
        """Give it and its blobs."""
        with peers.differ(pytestconfig.getoption("--address"), pytestconfig.getoption("--differ")) as found:
            yield found

    @pytest.fixture
    def differ(self, both: tuple[Differ, ContentStore]) -> Differ:
        """Give it."""
        return both[0]

    @pytest.fixture
    def store(self, both: tuple[Differ, ContentStore]) -> ContentStore:
        """Give its blobs."""
        return both[1]


class TestMetadata(MetadataSuite):
    """The leases and collections of --metadata."""

    @pytest.fixture
    def all(self, pytestconfig: pytest.Config) -> Iterator[tuple[RemoteMetadata, str, str]]:
        """Give the store, and two namespaces."""
        with peers.metadata(pytestconfig.getoption("--address"), pytestconfig.getoption("--metadata")) as found:
            yield found

    @pytest.fixture
    def metadata(self, all: tuple[RemoteMetadata, str, str]) -> Metadata:
        """Give the store."""
        return cast(Metadata, all[0])  # as much of it as the suite uses

    @pytest.fixture
    def namespace(self, all: tuple[RemoteMetadata, str, str]) -> str:
        """Give an empty namespace."""
        return all[1]

    @pytest.fixture
    def other(self, all: tuple[RemoteMetadata, str, str]) -> str:
        """Give another one."""
        return all[2]


class TestExchange(ExchangeSuite):
    """The events of --events."""

    @pytest.fixture
    def exchange(self, pytestconfig: pytest.Config) -> Iterator[Make]:
        """Give what finds them."""
        with peers.events(pytestconfig.getoption("--address")) as found:
            yield found


class TestRuntime(RuntimeSuite):
    """The runtime of --runtime."""

    @pytest.fixture
    def runtime(self, pytestconfig: pytest.Config) -> Iterator[Runtime]:
        """Give it; its sockets need a short path."""
        directory = Path(tempfile.mkdtemp(prefix="wlc"))
        try:
            name = pytestconfig.getoption("--runtime")
            with peers.runtime(pytestconfig.getoption("--address"), name, directory) as found:
                yield found
        finally:
            shutil.rmtree(directory, ignore_errors=True)


class TestSandboxController(SandboxControllerSuite):
    """The controller of --sandbox."""

    @pytest.fixture
    def both(self, pytestconfig: pytest.Config) -> Iterator[tuple[MakeController, str]]:
        """Give what finds it, and a namespace."""
        with peers.sandboxes(pytestconfig.getoption("--address"), pytestconfig.getoption("--sandbox")) as found:
            yield found

    @pytest.fixture
    def controller(self, both: tuple[MakeController, str]) -> MakeController:
        """Give what finds it."""
        return both[0]

    @pytest.fixture
    def namespace(self, both: tuple[MakeController, str]) -> str:
        """Give an empty namespace."""
        return both[1]
