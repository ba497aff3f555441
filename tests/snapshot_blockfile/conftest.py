"""An empty filesystem in a file, which is what the snapshotter starts from."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass_snapshot_blockfile import scratch
from windlass_snapshot_blockfile.snapshotter import BlockfileSnapshotter

MEGABYTES = 64


def missing() -> str:
    if os.geteuid() != 0:
        return "mounting needs root"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices here: modprobe loop"
    if shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        return "mkfs.ext4 is missing: apt-get install e2fsprogs"
    return ""


needs_loop = pytest.mark.skipif(bool(missing()), reason=missing() or "all is there")


def make(path: Path, kind: str = "ext4", *options: str) -> Path:
    with path.open("wb") as file:
        file.truncate(MEGABYTES << 20)
    subprocess.run([f"mkfs.{kind}", "-q", *options, path], check=True)
    return path


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `mkfs.ext4` makes."""
    if missing():
        pytest.skip(missing())
    return make(tmp_path_factory.mktemp("given") / "ext4")


@pytest.fixture
def opened(tmp_path: Path, given: Path) -> Iterator[BlockfileSnapshotter]:
    root = tmp_path / "root"
    snapshotter = BlockfileSnapshotter(root, scratch.require(root, given, "ext4", ()), "ext4")
    yield snapshotter
    snapshotter.close()
