"""A btrfs of the tests' own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.disks import small_disk


@pytest.fixture(scope="session")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A mounted btrfs."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("mkfs.btrfs is missing: apt-get install btrfs-progs")
    with small_disk(tmp_path_factory.mktemp("btrfs"), 512, "btrfs") as disk:
        yield disk.path


@pytest.fixture
def root(volume: Path, request: pytest.FixtureRequest) -> Path:
    """A directory on it."""
    name: str = request.node.name
    return volume / name.translate(str.maketrans("[]/", "---"))[:100]
