"""Blockfile's own promises: which file is mounted, what it is a copy of, and what is refused."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from snapshot_blockfile.conftest import make, needs_loop

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Usage
from windlass.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from windlass.plugin import SkipPlugin
from windlass_linux import loop, mounting
from windlass_snapshot_blockfile import scratch
from windlass_snapshot_blockfile.snapshotter import BlockfileSnapshotter

pytestmark = needs_loop


@pytest.fixture
def snapshotter(opened: BlockfileSnapshotter) -> BlockfileSnapshotter:
    return opened


def write(mounts: tuple[Mount, ...], place: Path, **files: bytes) -> None:
    with mounting.mounted(mounts, place) as top:
        for name, content in files.items():
            (Path(top) / name).write_bytes(content)


def test_mounts_are_files(snapshotter: BlockfileSnapshotter, tmp_path: Path) -> None:
    """A view's is its parent's own."""
    top = tmp_path / "root/snapshots"
    assert snapshotter.prepare("a") == (Mount("ext4", f"{top}/1/blockfile", ("loop", "rw")),)
    snapshotter.commit("base", "a")
    assert snapshotter.view("v", "base") == (Mount("ext4", f"{top}/1/blockfile", ("loop", "ro")),)
    assert snapshotter.view("empty") == (Mount("ext4", f"{top}/3/blockfile", ("loop", "ro")),)
    assert list((top / "2").iterdir()) == []


def test_configured_options_come_first(snapshotter: BlockfileSnapshotter, tmp_path: Path) -> None:
    other = BlockfileSnapshotter(tmp_path / "other", tmp_path / "root/scratch", "ext4", ("discard", "loop"))
    (mount,) = other.prepare("a")
    assert mount.options == ("discard", "loop", "rw")
    write((mount,), tmp_path, file=b"x")
    other.close()


def test_an_empty_snapshot_is_empty(snapshotter: BlockfileSnapshotter, tmp_path: Path) -> None:
    """What mkfs leaves in it is no part of any image."""
    with mounting.mounted(snapshotter.prepare("a"), tmp_path) as top:
        assert os.listdir(top) == []
    with mounting.mounted(snapshotter.view("v"), tmp_path) as top:
        assert os.listdir(top) == []


def test_files_stay_sparse(snapshotter: BlockfileSnapshotter, tmp_path: Path) -> None:
    write(snapshotter.prepare("a"), tmp_path, file=b"x" * 100_000)
    snapshotter.commit("base", "a")
    snapshotter.prepare("b", "base")
    for id in (1, 2):
        status = (tmp_path / f"root/snapshots/{id}/blockfile").stat()
        assert status.st_blocks * 512 < status.st_size / 4


def test_usage_is_what_the_parent_does_not_take(snapshotter: BlockfileSnapshotter, tmp_path: Path) -> None:
    write(snapshotter.prepare("a"), tmp_path, large=os.urandom(1_000_000))
    snapshotter.commit("base", "a")
    assert snapshotter.usage("base").size > 1_000_000
    mounts = snapshotter.prepare("b", "base")
    write(mounts, tmp_path, new=os.urandom(200_000))
    usage = snapshotter.usage("b")
    assert usage.inodes == 1
    assert 200_000 <= usage.size < 600_000
    snapshotter.commit("top", "b")
    assert snapshotter.usage("top") == usage
    snapshotter.view("v", "top")
    assert snapshotter.usage("v") == Usage(0, 0)


def test_a_mounted_snapshot_is_not_committed(
    snapshotter: BlockfileSnapshotter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file would change under those that are made on it."""
    monkeypatch.setattr(loop, "BUSY_SECONDS", 0.1)
    mounts = snapshotter.prepare("a")
    with mounting.mounted(mounts, tmp_path) as top:
        (Path(top) / "file").touch()
        with pytest.raises(FailedPrecondition, match="snapshot a is mounted"):
            snapshotter.commit("base", "a")
        with pytest.raises(OSError, match="a second writer would damage it"), mounting.mounted(mounts, tmp_path):
            pytest.fail("two filesystems write to one file")
    snapshotter.commit("base", "a")


def test_a_rebase_is_refused(snapshotter: BlockfileSnapshotter) -> None:
    for key in ("a", "b"):
        snapshotter.prepare(key)
    snapshotter.commit("base", "a")
    with pytest.raises(FailedPrecondition, match="blockfile cannot rebase"):
        snapshotter.commit("name", "b", parent="base")
    snapshotter.prepare("c", "base")
    snapshotter.commit("name", "c", parent="base")


def test_a_full_disk_leaves_nothing(
    snapshotter: BlockfileSnapshotter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the copy that did not fit; the error says so."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("windlass_storage.trees._copy_extents", full)
    monkeypatch.setattr("windlass_storage.trees._shared", lambda *_: False)
    with pytest.raises(ResourceExhausted, match="no space left"):
        snapshotter.prepare("a")
    assert list((tmp_path / "root/snapshots").iterdir()) == []
    assert list(snapshotter.walk()) == []


def test_removal_deletes_at_once(snapshotter: BlockfileSnapshotter, tmp_path: Path) -> None:
    """Also what is mounted, which those who have it keep until they are done."""
    with mounting.mounted(snapshotter.prepare("a"), tmp_path) as top:
        snapshotter.remove("a")
        (Path(top) / "file").write_bytes(b"still here")
    assert list((tmp_path / "root/snapshots").iterdir()) == []
    deadline = time.monotonic() + 10
    while devices(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not devices(tmp_path)


def devices(directory: Path) -> list[str]:
    """Return the loop devices of files in a directory."""
    files = []
    for each in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            files.append(each.read_text())
        except OSError:  # it was freed meanwhile
            continue
    return [file for file in files if file.startswith(f"{directory}/")]


# The empty filesystem


def test_without_one_the_plugin_is_skipped(tmp_path: Path) -> None:
    with pytest.raises(SkipPlugin, match=r"there is no .*/scratch; make .* mkfs.ext4, and set scratch_file"):
        scratch.require(tmp_path, None, "ext4", ())


def test_it_is_copied_once(tmp_path: Path, given: Path) -> None:
    """Or at every start, if that is wanted; no probe, mount or half made copy stays."""
    root = tmp_path / "root"
    first = scratch.require(root, given, "ext4", ()).stat()
    assert scratch.require(root, given, "ext4", ()).stat().st_ino == first.st_ino
    assert scratch.require(root, None, "ext4", (), again=True).stat().st_ino == first.st_ino
    assert scratch.require(root, given, "ext4", (), again=True).stat().st_ino != first.st_ino
    assert sorted(os.listdir(root)) == ["probe", "scratch"]
    assert not mounting.mounts_below(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(bytes(1 << 20)), "cannot be mounted: .*see that it holds ext4"),
        (lambda path: path.unlink(), "is not a file"),
    ],
    ids=["not a filesystem", "missing"],
)
def test_one_that_is_unfit_is_told(tmp_path: Path, spoil: Callable[[Path], None], reason: str) -> None:
    """And the old one stays."""
    root, given = tmp_path / "root", make(tmp_path / "given")
    old = scratch.require(root, given, "ext4", ()).stat().st_ino
    spoil(given)
    with pytest.raises((SkipPlugin, InvalidArgument), match=reason):
        scratch.require(root, given, "ext4", (), again=True)
    assert scratch.require(root, None, "ext4", ()).stat().st_ino == old
    assert sorted(os.listdir(root)) == ["probe", "scratch"]


def test_one_with_files_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").touch()
    given = make(tmp_path / "given", "ext4", "-d", str(tmp_path / "tree"))
    with pytest.raises(InvalidArgument, match="is not empty, it has 'file'"):
        scratch.require(tmp_path / "root", given, "ext4", ())
