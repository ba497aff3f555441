"""The conformance suite of differs, on ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from diff.conftest import ForkZygote, MemoryContent

from windlass.contracts.content import ContentStore
from windlass.contracts.diff import Differ
from windlass_conformance.differs import DifferSuite
from windlass_diff.differ import WalkingDiffer


@pytest.mark.root
class TestWalking(DifferSuite):
    """The differ of files and directories."""

    @pytest.fixture
    def store(self) -> ContentStore:
        return MemoryContent()

    @pytest.fixture
    def differ(self, zygote: ForkZygote, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Differ]:
        differ = WalkingDiffer(zygote, tmp_path_factory.mktemp("differ") / "target", 30.0)
        yield differ
        differ.close()
