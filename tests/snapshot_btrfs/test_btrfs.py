"""Btrfs's own promises: subvolumes, what they share, and that none stays behind."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Kind, Usage
from windlass.errors import AlreadyExists, FailedPrecondition
from windlass.process import faultpoints
from windlass_linux import mounting
from windlass_snapshot_btrfs import subvolumes
from windlass_snapshot_btrfs.filesystem import filesystem_of
from windlass_snapshot_btrfs.snapshotter import BtrfsSnapshotter


@pytest.fixture
def snapshotter(root: Path) -> Iterator[BtrfsSnapshotter]:
    snapshotter = BtrfsSnapshotter(root)
    yield snapshotter
    snapshotter.close()


def in_use(root: Path) -> list[str]:
    """Return the subvolumes below ``root``."""
    volume = root.parent
    listed = subprocess.run(["btrfs", "subvolume", "list", volume], check=True, capture_output=True, text=True).stdout
    paths = [line.split(" path ")[1] for line in listed.splitlines()]
    return sorted(path.removeprefix(f"{root.name}/") for path in paths if path.startswith(f"{root.name}/"))


def write(mounts: tuple[Mount, ...], place: Path, **files: bytes) -> None:
    place.mkdir(exist_ok=True)
    with mounting.mounted(mounts, place) as top:
        for name, content in files.items():
            (Path(top) / name).write_bytes(content)


def test_mounts_are_subvolumes(snapshotter: BtrfsSnapshotter, root: Path) -> None:
    """By number, of the device; a view's is its parent's own, read-only."""
    (active,) = snapshotter.prepare("a")
    snapshotter.commit("base", "a")
    _, device = filesystem_of(root)
    number = subvolumes.id_of(root / "snapshots/1/fs")
    assert active == Mount("btrfs", device, (f"subvolid={number}",))
    assert snapshotter.view("v", "base") == (Mount("btrfs", device, (f"subvolid={number}", "ro")),)
    assert in_use(root) == ["snapshots/1/fs"]


def test_a_committed_subvolume_cannot_be_written_to(snapshotter: BtrfsSnapshotter, root: Path) -> None:
    snapshotter.prepare("a")
    snapshotter.commit("base", "a")
    with pytest.raises(OSError, match="Read-only"):
        (root / "snapshots/1/fs/file").touch()


@pytest.fixture
def faulty() -> Iterator[Callable[[str], None]]:
    yield faultpoints.arm
    faultpoints.arm("")


def test_a_commit_whose_end_is_lost_cannot_be_written_to(
    snapshotter: BtrfsSnapshotter, root: Path, faulty: Callable[[str], None]
) -> None:
    """The row is there, whatever happens next; the subvolume was frozen before."""
    snapshotter.prepare("a")
    faulty("snapshots.committed=error(EIO)")
    with pytest.raises(OSError, match="fault"):
        snapshotter.commit("base", "a")
    assert snapshotter.stat("base").kind == Kind.COMMITTED
    with pytest.raises(OSError, match="Read-only"):
        (root / "snapshots/1/fs/file").touch()


def test_a_commit_that_is_refused_leaves_the_snapshot_writable(snapshotter: BtrfsSnapshotter, root: Path) -> None:
    for key in ("a", "b"):
        snapshotter.prepare(key)
    snapshotter.commit("base", "a")
    with pytest.raises(AlreadyExists):
        snapshotter.commit("base", "b")
    (root / "snapshots/2/fs/file").touch()
    snapshotter.commit("other", "b")


def test_a_snapshot_that_a_crash_left_frozen_can_be_written_to(snapshotter: BtrfsSnapshotter, root: Path) -> None:
    """Between the freezing and the row; whoever opens the snapshotter again finds it as it was."""
    snapshotter.prepare("a")
    subvolumes.freeze(root / "snapshots/1/fs")
    snapshotter.close()
    BtrfsSnapshotter(root).close()
    (root / "snapshots/1/fs/file").touch()


def test_usage_is_what_changed_since_the_parent(snapshotter: BtrfsSnapshotter, tmp_path: Path) -> None:
    write(snapshotter.prepare("a"), tmp_path / "m", large=b"x" * 1_000_000, small=b"y" * 5000)
    snapshotter.commit("base", "a")

    mounts = snapshotter.prepare("b", "base")
    assert snapshotter.usage("b") == Usage(0, 0)
    write(mounts, tmp_path / "m", new=b"z" * 50_000)
    usage = snapshotter.usage("b")
    assert usage.inodes == 2, "the file, and the directory that it is in"
    assert 50_000 <= usage.size < 60_000
    snapshotter.commit("top", "b")
    assert snapshotter.usage("top") == usage
    assert snapshotter.usage("base").size > 1_000_000


def test_removal_deletes_the_subvolume(snapshotter: BtrfsSnapshotter, root: Path) -> None:
    snapshotter.prepare("a")
    snapshotter.commit("base", "a")
    snapshotter.prepare("b", "base")
    snapshotter.view("v", "base")
    for key in ("v", "b", "base"):
        snapshotter.remove(key)
    assert in_use(root) == []
    assert list((root / "snapshots").iterdir()) == []


def test_subvolumes_that_a_container_made_go_with_it(snapshotter: BtrfsSnapshotter, root: Path) -> None:
    """Also nested ones, and read-only ones: Linux deletes only what has no others in it."""
    snapshotter.prepare("a")
    top = root / "snapshots/1/fs"
    (top / "d").mkdir()
    subvolumes.create(top / "d/inner")
    subvolumes.create(top / "d/inner/innermost")
    subvolumes.freeze(top / "d/inner")
    snapshotter.commit("base", "a")
    snapshotter.remove("base")
    assert in_use(root) == []


def test_what_a_crash_left_is_cleaned_up(snapshotter: BtrfsSnapshotter, root: Path) -> None:
    """Subvolumes without a row: half made ones, and those whose row is gone already."""
    snapshotter.prepare("stays")
    for left in ("new-0123-1", "77"):
        (root / "snapshots" / left).mkdir()
        subvolumes.create(root / "snapshots" / left / "fs")
        (root / "snapshots" / left / "fs/file").touch()
    snapshotter.cleanup()
    assert in_use(root) == ["snapshots/1/fs"]
    assert [each.name for each in (root / "snapshots").iterdir()] == ["1"]


def test_a_preparation_that_fails_leaves_nothing(snapshotter: BtrfsSnapshotter, root: Path) -> None:
    snapshotter.prepare("a")
    snapshotter.commit("base", "a")
    subvolumes.delete(root / "snapshots/1/fs")
    with pytest.raises(FileNotFoundError):
        snapshotter.prepare("b", "base")
    assert [each.name for each in (root / "snapshots").iterdir()] == ["1"]
    assert [info.name for info in snapshotter.walk()] == ["base"]


def test_a_rebase_is_refused(snapshotter: BtrfsSnapshotter) -> None:
    for key in ("a", "b"):
        snapshotter.prepare(key)
    snapshotter.commit("base", "a")
    with pytest.raises(FailedPrecondition, match="btrfs cannot rebase"):
        snapshotter.commit("name", "b", parent="base")


def test_a_filesystem_is_found_for_what_is_not_there_yet(volume: Path, tmp_path: Path) -> None:
    assert filesystem_of(volume / "a/b")[0] == "btrfs"
    assert filesystem_of(volume)[1].startswith("/dev/loop")
    assert filesystem_of(Path("/proc/self"))[0] == "proc"
