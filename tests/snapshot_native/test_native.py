"""Native's own promises: what is mounted, and that nothing stays behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.contracts.mounts import Mount
from windlass.errors import FailedPrecondition
from windlass_snapshot_native.snapshotter import NativeSnapshotter


@pytest.fixture
def snapshotter(tmp_path: Path) -> Iterator[NativeSnapshotter]:
    snapshotter = NativeSnapshotter(tmp_path)
    yield snapshotter
    snapshotter.close()


def test_mounts_are_binds(snapshotter: NativeSnapshotter, tmp_path: Path) -> None:
    """Of the snapshot's directory; a view's of its parent's."""
    top = tmp_path / "snapshots"
    assert snapshotter.prepare("a") == (Mount("bind", f"{top}/1", ("rbind", "rw")),)
    snapshotter.commit("base", "a")
    assert snapshotter.view("v", "base") == (Mount("bind", f"{top}/1", ("rbind", "ro")),)
    assert snapshotter.view("empty") == (Mount("bind", f"{top}/3", ("rbind", "ro")),)


def test_removal_deletes_at_once(snapshotter: NativeSnapshotter, tmp_path: Path) -> None:
    snapshotter.prepare("a")
    snapshotter.remove("a")
    assert list((tmp_path / "snapshots").iterdir()) == []


def test_a_rebase_is_refused(snapshotter: NativeSnapshotter) -> None:
    """The parent's files are not in it, and would be missing."""
    for key in ("a", "b"):
        snapshotter.prepare(key)
    snapshotter.commit("base", "a")
    with pytest.raises(FailedPrecondition, match="native cannot rebase"):
        snapshotter.commit("name", "b", parent="base")
    snapshotter.prepare("c", "base")
    snapshotter.commit("name", "c", parent="base")


@pytest.mark.skipif(os.geteuid() != 0, reason="owners need root")
def test_a_copy_that_fails_leaves_nothing(snapshotter: NativeSnapshotter, tmp_path: Path) -> None:
    """Files that vanish below it end the copy, not the snapshotter."""
    snapshotter.prepare("a")
    snapshotter.commit("base", "a")
    (tmp_path / "snapshots/1").rmdir()
    with pytest.raises(FileNotFoundError):
        snapshotter.prepare("b", "base")
    assert list((tmp_path / "snapshots").iterdir()) == []
    assert [info.name for info in snapshotter.walk()] == ["base"]
