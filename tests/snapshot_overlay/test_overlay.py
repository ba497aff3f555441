"""Overlay's own promises: mounts as data, owners, removal, what a crash leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import LABEL_GID_MAPPING, LABEL_UID_MAPPING, Kind, Usage
from windlass.errors import InvalidArgument, NoSpace, ResourceExhausted
from windlass.plugin import SkipPlugin
from windlass_linux import mounting
from windlass_snapshot_overlay import probe as probing
from windlass_snapshot_overlay.layers import Features, mounts
from windlass_snapshot_overlay.snapshotter import LABEL_UPPERDIR, OverlaySnapshotter
from windlass_storage import trees
from windlass_storage.metastore import Record

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and owners need root")

MAPPED = {LABEL_UID_MAPPING: "0:1000:65536", LABEL_GID_MAPPING: "0:2000:65536"}


@pytest.fixture
def snapshotter(tmp_path: Path) -> Iterator[OverlaySnapshotter]:
    snapshotter = OverlaySnapshotter(tmp_path / "root", Features())
    yield snapshotter
    snapshotter.close()


def left(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "root/snapshots").iterdir()}


MAPS = ("uidmap=0:1000:65536", "gidmap=0:2000:65536")


@pytest.mark.parametrize(
    ("kind", "parents", "features", "configured", "expected"),
    [
        (Kind.ACTIVE, (), Features(), (), Mount("bind", "/s/9/fs", ("rw", "rbind"))),
        (Kind.VIEW, (), Features(), (), Mount("bind", "/s/9/fs", ("ro", "rbind"))),
        (Kind.VIEW, (1,), Features(index=True), ("x",), Mount("bind", "/s/1/fs", ("ro", "rbind"))),
        (Kind.VIEW, (1,), Features(remap_ids=True), (), Mount("bind", "/s/1/fs", (*MAPS, "ro", "rbind"))),
        (
            Kind.ACTIVE,
            (2, 1),
            Features(),
            (),
            Mount("overlay", "overlay", ("workdir=/s/9/work", "upperdir=/s/9/fs", "lowerdir=/s/2/fs:/s/1/fs")),
        ),
        (Kind.VIEW, (2, 1), Features(), (), Mount("overlay", "overlay", ("lowerdir=/s/2/fs:/s/1/fs",))),
        (
            Kind.ACTIVE,
            (1,),
            Features(remap_ids=True, index=True, user_namespace=True),
            ("volatile",),
            Mount(
                "overlay",
                "overlay",
                (
                    *MAPS,
                    "workdir=/s/9/work",
                    "upperdir=/s/9/fs",
                    "lowerdir=/s/1/fs",
                    "volatile",
                    "userxattr",
                    "index=off",
                ),
            ),
        ),
        (
            Kind.VIEW,
            (2, 1),
            Features(index=True, user_namespace=True),
            ("index=on", "userxattr"),
            Mount("overlay", "overlay", ("lowerdir=/s/2/fs:/s/1/fs", "index=on", "userxattr")),
        ),
    ],
)
def test_mounts(
    kind: Kind, parents: tuple[int, ...], features: Features, configured: tuple[str, ...], expected: Mount
) -> None:
    """The table of docs/containerd 3.7, with the options in the order that clients expect."""
    record = Record(9, kind, parents, MAPPED, Usage(0, 0))
    assert mounts(record, lambda id: Path(f"/s/{id}"), features, configured) == (expected,)


def test_directories_are_as_containerd_makes_them(snapshotter: OverlaySnapshotter, tmp_path: Path) -> None:
    """Nobody but the owner gets below the root; modes do not depend on the umask."""
    snapshotter.prepare("a", "")
    snapshotter.view("v", "")
    root = tmp_path / "root"
    modes = {str(p.relative_to(root)): oct(p.stat().st_mode & 0o7777) for p in root.rglob("*") if p.is_dir()}
    assert modes == {
        "snapshots": "0o700",
        "snapshots/1": "0o700",
        "snapshots/1/fs": "0o755",
        "snapshots/1/work": "0o711",
        "snapshots/2": "0o700",
        "snapshots/2/fs": "0o755",
    }
    assert root.stat().st_mode & 0o777 == 0o700


@needs_root
@pytest.mark.parametrize("remap", [True, False])
def test_the_owner_of_a_new_root(tmp_path: Path, remap: bool) -> None:
    """What the labels map 0 to, else the parent's owner; not twice where the only mount is mapped itself."""
    snapshotter = OverlaySnapshotter(tmp_path / "root", Features(remap_ids=remap))
    upper = tmp_path / "root/snapshots"
    snapshotter.prepare("base", "")
    os.chown(upper / "1/fs", 7, 8)
    snapshotter.commit("base-name", "base")
    snapshotter.prepare("inherits", "base-name")
    snapshotter.prepare("mapped", "base-name", MAPPED)
    snapshotter.prepare("bottom", "", MAPPED)
    owners = [(s.st_uid, s.st_gid) for s in ((upper / str(id) / "fs").stat() for id in (2, 3, 4))]
    assert owners == [(7, 8), (1000, 2000), (0, 0) if remap else (1000, 2000)]
    for labels in ({LABEL_UID_MAPPING: "0:0:1"}, {**MAPPED, LABEL_UID_MAPPING: "nonsense"}):
        with pytest.raises(InvalidArgument):
            snapshotter.prepare("bad", "base-name", labels)
    snapshotter.close()


def test_removal_waits_for_cleanup(snapshotter: OverlaySnapshotter, tmp_path: Path) -> None:
    snapshotter.prepare("a", "")
    snapshotter.prepare("b", "")
    snapshotter.remove("a")
    assert left(tmp_path) == {"1", "2"}
    snapshotter.cleanup()
    assert left(tmp_path) == {"2"}


def test_removal_at_once_when_configured(tmp_path: Path) -> None:
    snapshotter = OverlaySnapshotter(tmp_path / "root", Features(), sync_remove=True)
    snapshotter.prepare("a", "")
    snapshotter.remove("a")
    assert left(tmp_path) == set()
    snapshotter.close()


def test_the_upper_directory_is_shown_when_configured(tmp_path: Path) -> None:
    snapshotter = OverlaySnapshotter(tmp_path / "root", Features(), upperdir_label=True)
    snapshotter.prepare("a", "")
    upper = str(tmp_path / "root/snapshots/1/fs")
    assert snapshotter.stat("a").labels == {LABEL_UPPERDIR: upper}
    assert [info.labels for info in snapshotter.walk()] == [{LABEL_UPPERDIR: upper}]
    snapshotter.close()


def test_rebase(snapshotter: OverlaySnapshotter) -> None:
    """A layer that was unpacked alone takes its place in the chain at commit."""
    for name in ("one", "two"):
        snapshotter.prepare(f"key {name}", "")
    snapshotter.commit("one", "key one")
    snapshotter.commit("two", "key two", parent="one")
    (mount,) = snapshotter.prepare("top", "two")
    assert mount.options[2].endswith("snapshots/2/fs:" + mount.options[2].split(":")[1])
    assert mount.options[2].split(":")[1].endswith("snapshots/1/fs")


CRASH = """
import os, sys
from pathlib import Path
from windlass_snapshot_overlay.layers import Features
from windlass_snapshot_overlay.snapshotter import OverlaySnapshotter

calls = ("os.mkdir", "os.rename", "os.chmod", "os.rmdir", "os.scandir", "open")
left = None

def kill_at_the_last(event, _arguments):
    global left
    if left is not None and event in calls:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)

def life(root):
    global left
    snapshotter = OverlaySnapshotter(root, Features(), sync_remove=True)
    left = int(root.name)
    snapshotter.prepare("a", "")
    snapshotter.commit("base", "a")
    snapshotter.prepare("b", "base")
    snapshotter.view("v", "base")
    snapshotter.remove("b")
    snapshotter.cleanup()

sys.addaudithook(kill_at_the_last)
for point in range(1, 100):
    child = os.fork()
    if not child:
        life(Path(sys.argv[1], str(point)))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        sys.exit(0)
sys.exit("the last point was never reached")
"""


def test_a_crash_anywhere_leaves_rows_with_files_and_nothing_else(tmp_path: Path) -> None:
    """Killed at every call on the disk: each row has its files, and cleanup takes what has no row."""
    subprocess.run([sys.executable, "-c", CRASH, str(tmp_path)], check=True, timeout=60)
    roots = list(tmp_path.iterdir())
    assert len(roots) > 20
    for root in roots:
        snapshotter = OverlaySnapshotter(root, Features())
        snapshotter.cleanup()
        infos = list(snapshotter.walk())
        for info in infos:
            snapshotter.usage(info.name)
            if info.kind != Kind.COMMITTED:
                assert snapshotter.mounts(info.name)
        assert len(list((root / "snapshots").iterdir())) == len(infos)
        snapshotter.close()


def test_a_directory_whose_row_was_lost_gives_way(snapshotter: OverlaySnapshotter, tmp_path: Path) -> None:
    """After a power cut an ID may be given again; the old files are not shown."""
    stale = tmp_path / "root/snapshots/1/fs/stale"
    stale.parent.mkdir(parents=True)
    stale.touch()
    snapshotter.prepare("a", "")
    assert not stale.exists()
    assert snapshotter.usage("a").inodes == 1


@needs_root
def test_a_full_disk_is_told_and_harmless(tmp_path: Path) -> None:
    """ResourceExhausted names the place, no half snapshot stays, and what was there is there."""
    with mounting.mounted([Mount("tmpfs", "tmpfs", ("size=4M", "nr_inodes=40"))], tmp_path) as place:
        snapshotter = OverlaySnapshotter(Path(place) / "root", Features())
        try:
            made = []
            with pytest.raises(ResourceExhausted, match="root"):
                for number in range(40):
                    snapshotter.prepare(f"key{number}", "")
                    made.append(f"key{number}")
            assert [info.name for info in snapshotter.walk()] == made
            assert len(list((Path(place) / "root/snapshots").iterdir())) == len(made)
            snapshotter.remove(made[0])
            snapshotter.cleanup()
            snapshotter.prepare("again", "")
        finally:
            snapshotter.close()


# Probing


@needs_root
def test_a_probe_that_was_killed_leaves_no_mount_for_long(tmp_path: Path) -> None:
    """The next one unmounts what it was doing."""
    left = tmp_path / "root/probe"
    (left / "merged").mkdir(parents=True)
    mounting.mount_one(Mount("tmpfs", "tmpfs", ()), str(left / "merged"))
    probing.probe(tmp_path / "root")
    assert mounting.mounts_below(tmp_path) == []


@needs_root
def test_the_probe_leaves_directories_for_the_next_one(tmp_path: Path) -> None:
    """No mounts; and what it finds is the same, also of a copy with all its attributes."""
    features = probing.probe(tmp_path / "root")
    assert not features.user_namespace
    assert [each.name for each in (tmp_path / "root").iterdir()] == ["probe"]
    assert mounting.mounts_below(tmp_path) == []
    (tmp_path / "copy").mkdir()
    trees.copy(tmp_path / "root", tmp_path / "copy")
    assert probing.probe(tmp_path / "root") == probing.probe(tmp_path / "copy") == features


@needs_root
def test_a_probe_that_was_killed_does_not_spoil_the_next(tmp_path: Path) -> None:
    """Its mount was volatile, and Linux refuses a work directory that says so."""
    features = probing.probe(tmp_path / "root")
    work = tmp_path / "root/probe/work/work"
    assert list(work.iterdir()) == []
    (work / "incompat/volatile").mkdir(parents=True)
    (work / "incompat/volatile/dirty").touch()
    assert probing.probe(tmp_path / "root") == features
    assert list(work.iterdir()) == []


def test_a_second_probe_needs_no_space(tmp_path: Path) -> None:
    """A disk that is full does not cost the snapshotter, nor what it can do; for the first one it is NoSpace."""
    (tmp_path / "image").touch()
    os.truncate(tmp_path / "image", 8 << 20)
    if subprocess.run(["mke2fs", "-q", "-F", "-m", "0", tmp_path / "image"], check=False).returncode:
        pytest.skip("mke2fs does not work here; apt install e2fsprogs")
    with mounting.mounted([Mount("ext4", str(tmp_path / "image"), ("loop",))], tmp_path) as place:
        features = probing.probe(Path(place) / "root")
        (Path(place) / "new").mkdir()
        with (Path(place) / "filler").open("wb") as filler, pytest.raises(OSError, match="No space"):
            while True:
                os.posix_fallocate(filler.fileno(), os.fstat(filler.fileno()).st_size, 1024)
        assert probing.probe(Path(place) / "root") == features
        with pytest.raises(NoSpace):
            probing.probe(Path(place) / "new")


@needs_root
def test_a_filesystem_that_overlay_refuses_is_a_skip(tmp_path: Path) -> None:
    """An overlay is none that overlay takes for its upper directory; the reason and a remedy are told."""
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    options = (f"lowerdir={tmp_path}/lower", f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work")
    with (
        mounting.mounted([Mount("overlay", "overlay", options)], tmp_path) as place,
        pytest.raises(SkipPlugin, match=r"overlay cannot be mounted in .*; .*another root_path: skip plugin"),
    ):
        probing.probe(Path(place) / "root")


def test_a_root_with_a_colon_is_a_skip(tmp_path: Path) -> None:
    with pytest.raises(SkipPlugin, match="rename it"):
        probing.probe(tmp_path / "a:b")


@needs_root
def test_remapped_containers_see_their_own_root(tmp_path: Path) -> None:
    """Mapped lower files and a fresh upper file have the mapped owners."""
    root = tmp_path / "root"
    features = probing.probe(root)
    if not features.remap_ids:
        pytest.skip("no ID-mapped overlay on this filesystem")
    snapshotter = OverlaySnapshotter(root, features)
    with mounting.mounted(snapshotter.prepare("key", ""), tmp_path) as place:
        (Path(place) / "lower").touch()
    snapshotter.commit("base", "key")
    with mounting.mounted(snapshotter.prepare("container", "base", MAPPED), tmp_path) as place:
        for path in (Path(place), Path(place) / "lower"):
            assert (path.stat().st_uid, path.stat().st_gid) == (1000, 2000)
    snapshotter.close()
