"""The promises of `windlass.contracts.snapshots.Snapshotter` about files: mounts and their contents.

Part of `windlass_conformance.snapshots.SnapshotterSuite`; the cases are those of docs/containerd 8.2.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Snapshotter
from windlass_linux import mounting

ROOTED: Mapping[str, str] = {"containerd.io/gc.root": "2026-01-01T00:00:00Z"}
"""Keeps a snapshot from garbage collection, should the snapshotter have one."""

LAYERS = 128

Change = Callable[[Path], None]
Entry = tuple[int, int, int, bytes]

needs_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")


def write(path: Path, content: str = "", mode: int = 0o644) -> None:
    """Write a file, with the directories that lead to it, and set its mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)


def tree(root: Path) -> dict[str, Entry]:
    """Return mode, owner, group and content of everything at and below ``root``."""
    return {str(path.relative_to(root)): _entry(path) for path in (root, *root.rglob("*"))}


def _entry(path: Path) -> Entry:
    status = path.lstat()
    content = b""
    if stat.S_ISREG(status.st_mode):
        content = path.read_bytes()
    elif stat.S_ISLNK(status.st_mode):
        content = os.fsencode(path.readlink())
    return status.st_mode, status.st_uid, status.st_gid, content


def contents(root: Path) -> dict[str, str]:
    """Return the regular files below ``root`` and their contents."""
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def nothing(root: Path) -> None:
    """Change nothing."""


@contextmanager
def shown(mounts: Sequence[Mount], tmp_path: Path) -> Iterator[Path]:
    """Yield a directory where ``mounts`` are mounted."""
    with mounting.mounted(mounts, tmp_path) as place:
        yield Path(place)


def layer(snapshotter: Snapshotter, tmp_path: Path, name: str, parent: str, change: Change) -> None:
    """Commit ``name``, which is ``parent`` with ``change`` made to it."""
    mounts = snapshotter.prepare(f"extract {name}", parent, ROOTED)
    with shown(mounts, tmp_path) as root:
        change(root)
    snapshotter.commit(name, f"extract {name}", ROOTED)


def look(snapshotter: Snapshotter, tmp_path: Path, parent: str) -> dict[str, Entry]:
    """Return the tree that a view of ``parent`` shows."""
    mounts = snapshotter.view(f"look at {parent}", parent, ROOTED)
    try:
        with shown(mounts, tmp_path) as root:
            return tree(root)
    finally:
        snapshotter.remove(f"look at {parent}")


class FileCases:
    """What is in snapshots, seen through their mounts."""

    @pytest.fixture(autouse=True)
    def _nothing_stays_mounted(self, tmp_path: Path) -> Iterator[None]:
        umask = os.umask(0)
        yield
        os.umask(umask)
        if os.geteuid() == 0:
            mounting.unmount_all(tmp_path)

    @needs_root
    def test_usage_counts_inodes_and_bytes(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """Usage grows with written data, counts hard links once, and stays at commit.

        A snapshot that is one file may count as one inode, whatever is in it.
        """
        mounts = snapshotter.prepare("key", "", ROOTED)
        empty = snapshotter.usage("key")
        with shown(mounts, tmp_path) as root:
            (root / "file").write_bytes(b"x" * 100_000)
            (root / "link").hardlink_to(root / "file")
        full = snapshotter.usage("key")
        snapshotter.commit("name", "key", ROOTED)

        assert full.inodes == empty.inodes + 1 or full.inodes == empty.inodes == 1
        assert 100_000 <= full.size - empty.size < 200_000
        assert snapshotter.usage("name") == full

    @needs_root
    def test_changes_within_one_tick_of_the_clock(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """A change of content or mode that leaves size and time as they were is not lost."""
        moment = 1_700_000_000 * 10**9

        def base(root: Path) -> None:
            for number in range(5):
                write(root / f"content{number}", "old", 0o644)
                write(root / f"mode{number}", "same", 0o644)
            for path in root.iterdir():
                os.utime(path, ns=(moment, moment))

        def change(number: int) -> Change:
            def work(root: Path) -> None:
                write(root / f"content{number}", "new", 0o644)
                (root / f"mode{number}").chmod(0o600)
                for path in root.iterdir():
                    os.utime(path, ns=(moment, moment))

            return work

        layer(snapshotter, tmp_path, "layer0", "", base)
        for number in range(5):
            layer(snapshotter, tmp_path, f"layer{number + 1}", f"layer{number}", change(number))

        found = look(snapshotter, tmp_path, "layer5")
        assert {found[f"content{n}"][3] for n in range(5)} == {b"new"}
        assert {stat.S_IMODE(found[f"mode{n}"][0]) for n in range(5)} == {0o600}

    @needs_root
    def test_a_directory_made_anew_is_empty(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """A directory that was removed and made again does not show what was in it before."""

        def base(root: Path) -> None:
            write(root / "dir1/a", "a")
            write(root / "dir1/b", "b")

        def anew(root: Path) -> None:
            shutil.rmtree(root / "dir1")
            write(root / "dir1/f2", "f2")

        layer(snapshotter, tmp_path, "one", "", base)
        layer(snapshotter, tmp_path, "two", "one", anew)
        layer(snapshotter, tmp_path, "three", "two", lambda root: write(root / "dir1/f3", "f3"))

        with shown(snapshotter.view("view", "three", ROOTED), tmp_path) as root:
            assert contents(root) == {"dir1/f2": "f2", "dir1/f3": "f3"}

    @needs_root
    def test_owners_change(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """A new owner of a directory and of a file in a lower layer is seen."""

        def base(root: Path) -> None:
            write(root / "opt/a/b.txt", "hello")
            write(root / "opt/c.txt", "there")

        def chown(root: Path) -> None:
            for path in (root / "opt", root / "opt/a", root / "opt/a/b.txt"):
                os.chown(path, 10, 20)

        layer(snapshotter, tmp_path, "one", "", base)
        layer(snapshotter, tmp_path, "two", "one", chown)

        found = look(snapshotter, tmp_path, "two")
        assert {name: entry[1:3] for name, entry in found.items() if name != "."} == {
            "opt": (10, 20),
            "opt/a": (10, 20),
            "opt/a/b.txt": (10, 20),
            "opt/c.txt": (0, 0),
        }

    @needs_root
    def test_owners_of_directories_made_anew(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """Directories keep their exact owners when they are removed and made again in the next layers."""

        def base(root: Path) -> None:
            for name in ("a", "b", "c", "d", "e", "f"):
                (root / "dirs" / name).mkdir(parents=True)
            for name in ("b", "c", "e"):
                os.chown(root / "dirs" / name, 1, 1)

        def second(root: Path) -> None:
            os.chown(root / "dirs/a", 2, 2)
            os.chown(root / "dirs/b", 0, 0)
            for name in ("c", "d"):
                (root / "dirs" / name).rmdir()

        def third(root: Path) -> None:
            for name in ("c", "d"):
                (root / "dirs" / name).mkdir()
            os.chown(root / "dirs/d", 1, 1)
            (root / "dirs/e").rmdir()
            (root / "dirs/e").mkdir()

        layer(snapshotter, tmp_path, "one", "", base)
        layer(snapshotter, tmp_path, "two", "one", second)
        layer(snapshotter, tmp_path, "three", "two", third)

        found = look(snapshotter, tmp_path, "three")
        owners = {name[-1]: entry[1] for name, entry in found.items() if name.startswith("dirs/")}
        assert owners == {"a": 2, "b": 0, "c": 0, "d": 1, "e": 0, "f": 0}

    @needs_root
    def test_deleted_files_stay_deleted(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """A deletion in one layer holds in an empty layer on top of it."""

        def base(root: Path) -> None:
            write(root / "foo", "foo")
            write(root / "dir/bar", "bar")

        def delete(root: Path) -> None:
            (root / "foo").unlink()
            (root / "dir/bar").unlink()

        layer(snapshotter, tmp_path, "one", "", base)
        layer(snapshotter, tmp_path, "two", "one", delete)
        layer(snapshotter, tmp_path, "three", "two", nothing)

        assert set(look(snapshotter, tmp_path, "three")) == {".", "dir"}

    @needs_root
    def test_a_file_moves_out_of_a_lower_directory(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """A lower file can be linked into a new directory and its old directory deleted."""

        def move(root: Path) -> None:
            (root / "new").mkdir()
            (root / "new/file").hardlink_to(root / "old/file")
            (root / "old/file").unlink()
            (root / "old").rmdir()

        layer(snapshotter, tmp_path, "one", "", lambda root: write(root / "old/file", "content"))
        layer(snapshotter, tmp_path, "two", "one", move)

        with shown(snapshotter.view("view", "two", ROOTED), tmp_path) as root:
            assert contents(root) == {"new/file": "content"}

    @needs_root
    def test_files_are_renamed(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """A lower file can be renamed, also over another lower file."""

        def base(root: Path) -> None:
            write(root / "a", "a")
            write(root / "b", "b")
            write(root / "c", "c")

        def rename(root: Path) -> None:
            (root / "a").rename(root / "b")
            (root / "c").rename(root / "d")

        layer(snapshotter, tmp_path, "one", "", base)
        layer(snapshotter, tmp_path, "two", "one", rename)

        with shown(snapshotter.view("view", "two", ROOTED), tmp_path) as root:
            assert contents(root) == {"b": "a", "d": "c"}

    @needs_root
    def test_a_view_is_read_only(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """Nothing can be written through a view, whether it has no parent, one, or two."""
        layer(snapshotter, tmp_path, "one", "", lambda root: write(root / "file"))
        layer(snapshotter, tmp_path, "two", "one", lambda root: write(root / "file"))

        for parent in ("", "one", "two"):
            mounts = snapshotter.view(f"view of {parent}", parent, ROOTED)
            with shown(mounts, tmp_path) as root, pytest.raises(OSError):
                (root / "new").write_text("")

    @needs_root
    def test_a_snapshot_does_not_change_with_its_children(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """What is written on one snapshot is seen neither in its parent nor in its siblings."""
        layer(snapshotter, tmp_path, "base", "", lambda root: write(root / "file", "base"))
        before = look(snapshotter, tmp_path, "base")

        layer(snapshotter, tmp_path, "left", "base", lambda root: write(root / "file", "left"))
        layer(snapshotter, tmp_path, "right", "base", lambda root: write(root / "other", "right"))

        assert look(snapshotter, tmp_path, "base") == before
        with shown(snapshotter.view("view", "right", ROOTED), tmp_path) as root:
            assert contents(root) == {"file": "base", "other": "right"}

    @needs_root
    def test_the_root_of_a_fresh_snapshot_has_mode_0755(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """The umask of the daemon is not seen in containers."""
        os.umask(0o077)
        with shown(snapshotter.prepare("key", "", ROOTED), tmp_path) as root:
            assert stat.S_IMODE(root.stat().st_mode) == 0o755

    @needs_root
    def test_128_layers(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """A chain of 128 layers, each of which overwrites, adds and replaces, shows what a flat directory would."""
        flat = tmp_path / "flat"
        flat.mkdir(mode=0o755)
        parent, expected = "", tree(flat)
        for number in range(LAYERS):

            def change(root: Path, number: int = number) -> None:
                write(root / "bottom", f"layer {number}")
                write(root / f"top{number}", f"{number}")
                shutil.rmtree(root / "added", ignore_errors=True)
                write(root / f"added/file{number}", f"{number}")

            with shown(snapshotter.prepare(f"key{number}", parent, ROOTED), tmp_path) as root:
                assert tree(root) == expected
                change(root)
                change(flat)
                expected = tree(flat)
                assert tree(root) == expected
            parent = f"layer{number}"
            snapshotter.commit(parent, f"key{number}", ROOTED)

        assert look(snapshotter, tmp_path, parent) == expected
