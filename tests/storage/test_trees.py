"""Trees are copied with all they have, measured, and removed."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from windlass.errors import FailedPrecondition
from windlass_storage import trees

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")


@needs_root
def test_a_copy_has_everything(tmp_path: Path) -> None:
    """Owners, modes, times, attributes, links, devices, FIFOs and holes; sockets are left out."""
    source, to = tmp_path / "source", tmp_path / "to"
    source.mkdir()
    to.mkdir()
    (source / "dir").mkdir(mode=0o711)
    (source / "dir/file").write_text("content")
    (source / "dir/file").chmod(0o640)
    os.chown(source / "dir/file", 5, 6)
    (source / "dir/file").chmod(0o4755)
    os.setxattr(source / "dir/file", "user.x", b"y")
    os.utime(source / "dir/file", ns=(10**18, 10**18 + 1))
    (source / "hard").hardlink_to(source / "dir/file")
    (source / "dangling").symlink_to("/nowhere")
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(source / "fifo")
    with (source / "sparse").open("wb") as file:
        file.seek(10 << 20)
        file.write(b"end")
        file.truncate(20 << 20)
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(source)
        listener.bind("socket")
        os.chdir(before)
    os.utime(source / "dir", ns=(10**18, 10**18 + 2))

    trees.copy(source, to)

    assert {path.name for path in to.rglob("*")} == {"dir", "file", "hard", "dangling", "null", "fifo", "sparse"}
    for path in source.rglob("*"):
        if path.name == "socket":
            continue
        a, b = path.lstat(), (to / path.relative_to(source)).lstat()
        same = ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_rdev")
        assert [getattr(a, field) for field in same] == [getattr(b, field) for field in same], path
    assert os.getxattr(to / "dir/file", "user.x") == b"y"
    assert (to / "hard").stat().st_ino == (to / "dir/file").stat().st_ino
    assert (to / "sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (to / "sparse").stat().st_blocks * 512 < 1 << 20


def test_usage_counts_each_inode_once(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    empty = trees.measure(top)
    (top / "a").write_bytes(b"x" * 8192)
    (top / "b").hardlink_to(top / "a")
    (top / "loop").symlink_to(".")
    full = trees.measure(top)
    assert empty.inodes == 1
    assert full.inodes == 3
    assert full.size - empty.size in range(8192, 16385)


def test_removal_stays_in_the_tree(tmp_path: Path) -> None:
    """A link in the tree does not lead removal out of it; a tree that is gone is no error."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    (tmp_path / "top").mkdir()
    (tmp_path / "top/link").symlink_to(tmp_path / "outside")
    trees.remove(tmp_path / "top")
    trees.remove(tmp_path / "top")
    assert (tmp_path / "outside/file").exists()


def dig(top: Path, depth: int, name: str = "d") -> None:
    """Make a file ``depth`` directories below ``top``, deeper than any path can say."""
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT, dir_fd=here))
    os.close(here)


def test_a_tree_of_any_depth_is_measured_and_removed(tmp_path: Path) -> None:
    """A container can dig one that is longer than any path, Python's stack or the list of descriptors."""
    top = tmp_path / "top"
    dig(top, 5000)
    assert trees.measure(top).inodes == 5002
    trees.remove(top)
    assert not top.exists()


def test_a_tree_with_paths_too_long_for_linux_is_not_copied(tmp_path: Path) -> None:
    """Who asks learns why; a snapshotter then removes what it has so far."""
    dig(tmp_path / "top", 20, "d" * 255)
    (tmp_path / "copy").mkdir()
    with pytest.raises(FailedPrecondition, match="nested too deeply to be copied"):
        trees.copy(tmp_path / "top", tmp_path / "copy")
    trees.remove(tmp_path / "top")
    trees.remove(tmp_path / "copy")


def test_a_tree_that_is_absurdly_deep_is_not_measured_but_removed(tmp_path: Path) -> None:
    """The daemon's descriptors are for others, too."""
    top = tmp_path / "top"
    dig(top, 500, "d" * 255)
    with pytest.raises(FailedPrecondition, match="nested more deeply than can be measured"):
        trees.measure(top)
    trees.remove(top)
    assert not top.exists()


def test_removal_follows_no_link_and_leaves_the_neighbours(tmp_path: Path) -> None:
    """Only what is in the tree goes."""
    top, beside = tmp_path / "top", tmp_path / "beside"
    for path in (top / "a/b/c", top / "a/empty", top / "x/b", beside):
        path.mkdir(parents=True)
    (beside / "kept").touch()
    (top / "a/b/link").symlink_to(beside, target_is_directory=True)
    (top / "a/b/c/file").hardlink_to(beside / "kept")
    trees.remove(top)
    assert os.listdir(tmp_path) == ["beside"]
    assert (beside / "kept").stat().st_nlink == 1
