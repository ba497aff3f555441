"""The conformance suite of mount handlers, on ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from snapshot_erofs.conftest import needs_erofs

from windlass.contracts.activations import MountHandler
from windlass.contracts.mounts import Mount
from windlass_conformance.mount_handlers import MountHandlerSuite
from windlass_mounts.loops import LoopHandler
from windlass_snapshot_erofs.handler import ErofsHandler
from windlass_snapshot_erofs.images import Images
from windlass_storage.directory_handler import DirectoryHandler


class TestBind(MountHandlerSuite):
    """What authors build on, with binds."""

    @pytest.fixture
    def handler(self) -> MountHandler:
        return DirectoryHandler()

    @pytest.fixture
    def mount(self, tmp_path: Path) -> Mount:
        (tmp_path / "source").mkdir()
        return Mount("bind", str(tmp_path / "source"), ("rbind", "ro"))


@needs_erofs
class TestErofs(MountHandlerSuite):
    """The handler of images."""

    @pytest.fixture
    def handler(self) -> MountHandler:
        return ErofsHandler()

    @pytest.fixture
    def mount(self, tmp_path: Path) -> Mount:
        (tmp_path / "tree").mkdir()
        Images().make(tmp_path / "tree", tmp_path / "image.erofs")
        return Mount("erofs", str(tmp_path / "image.erofs"), ("ro", "loop"))


@pytest.mark.skipif(not os.path.exists("/dev/loop-control"), reason="this Linux has no loop devices")
class TestLoop(MountHandlerSuite):
    """The handler of loop devices, whose places are links."""

    def leave_half(self, place: str) -> None:
        Path(place).symlink_to("/dev/loop-that-is-none")

    @pytest.fixture
    def handler(self) -> MountHandler:
        return LoopHandler()

    @pytest.fixture
    def mount(self, tmp_path: Path) -> Mount:
        with (tmp_path / "file").open("wb") as file:
            file.truncate(1 << 20)
        return Mount("loop", str(tmp_path / "file"), ("ro",))
