"""The promises of `windlass.snapshots.Snapshotter`, one test each.

The cases are those of reference 8.2. The subclass provides a fixture
``snapshotter`` that gives a fresh, empty snapshotter to each test.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from windlass import mounting
from windlass.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from windlass.mounts import Mount
from windlass.snapshots import Info, Kind, Snapshotter

ROOTED: Mapping[str, str] = {"containerd.io/gc.root": "2026-01-01T00:00:00Z"}
"""Keeps a snapshot from garbage collection, should the snapshotter have one."""

LAYERS = 128
FREE_STRINGS = ("a/b/../c", "../../x", "sha256:" + "a" * 64, "ü ñ 你好", "with\nnewline", "k" * 4096, ".")

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
    """Return the regular files below ``root`` and what is in them."""
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


class SnapshotterSuite:
    """What a snapshotter promises; see the module for how to run it."""

    certifies = "snapshotter"

    @pytest.fixture
    def snapshotter(self) -> Snapshotter:
        """Give the snapshotter under test; the subclass provides it."""
        raise NotImplementedError("the subclass provides the snapshotter under test")

    @pytest.fixture(autouse=True)
    def _nothing_stays_mounted(self, tmp_path: Path) -> Iterator[None]:
        umask = os.umask(0)
        yield
        os.umask(umask)
        if os.geteuid() == 0:
            mounting.unmount_all(tmp_path)

    # The life of a snapshot

    @needs_root
    def test_basic(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """Files written through the mounts are in the committed snapshot, in those on top of it, and in views."""

        def first(root: Path) -> None:
            write(root / "foo", "foo\n", 0o777)
            write(root / "a/b/c", "c\n")

        def second(root: Path) -> None:
            assert contents(root) == {"foo": "foo\n", "a/b/c": "c\n"}
            write(root / "bar", "bar\n")
            shutil.rmtree(root / "a/b")

        layer(snapshotter, tmp_path, "one", "", first)
        layer(snapshotter, tmp_path, "two", "one", second)

        with pytest.raises(NotFound):
            snapshotter.stat("extract two")
        assert snapshotter.stat("one").kind == Kind.COMMITTED
        assert snapshotter.stat("two").parent == "one"
        assert {info.name: info for info in snapshotter.walk()} == {n: snapshotter.stat(n) for n in ("one", "two")}
        with shown(snapshotter.view("view", "two", ROOTED), tmp_path) as root:
            assert contents(root) == {"foo": "foo\n", "bar": "bar\n"}
            assert (root / "a").is_dir()
        with pytest.raises(FailedPrecondition, match="remove"):
            snapshotter.remove("one")
        for name in ("view", "two", "one"):
            snapshotter.remove(name)
        assert list(snapshotter.walk()) == []

    def test_an_active_snapshot_is_described(self, snapshotter: Snapshotter) -> None:
        """Stat of an active snapshot tells its key, its kind and its parent."""
        assert snapshotter.prepare("active", "", ROOTED)

        info = snapshotter.stat("active")

        assert (info.name, info.kind, info.parent) == ("active", Kind.ACTIVE, "")

    def test_commit_takes_the_key_away(self, snapshotter: Snapshotter) -> None:
        """After commit the name is there and the key is not."""
        snapshotter.prepare("active", "", ROOTED)
        snapshotter.commit("committed", "active", ROOTED)

        info = snapshotter.stat("committed")

        assert (info.name, info.kind, info.parent) == ("committed", Kind.COMMITTED, "")
        with pytest.raises(NotFound):
            snapshotter.stat("active")
        with pytest.raises(FailedPrecondition):
            snapshotter.mounts("committed")

    def test_parents_form_a_chain(self, snapshotter: Snapshotter) -> None:
        """Each committed snapshot names the one that it was prepared on."""
        snapshotter.prepare("key a", "", ROOTED)
        snapshotter.commit("a", "key a", ROOTED)
        snapshotter.prepare("key b", "a", ROOTED)
        snapshotter.commit("b", "key b", ROOTED)

        assert snapshotter.stat("b").parent == "a"
        assert snapshotter.stat("a").parent == ""

    def test_a_key_is_used_once(self, snapshotter: Snapshotter) -> None:
        """Prepare and view refuse a key or name that is taken, whatever its kind."""
        snapshotter.prepare("key", "", ROOTED)
        snapshotter.commit("base", "key", ROOTED)
        snapshotter.prepare("active", "base", ROOTED)
        snapshotter.view("view", "base", ROOTED)

        for taken in ("active", "view", "base"):
            with pytest.raises(AlreadyExists):
                snapshotter.prepare(taken, "base", ROOTED)
            with pytest.raises(AlreadyExists):
                snapshotter.view(taken, "base", ROOTED)
        with pytest.raises(AlreadyExists):
            snapshotter.commit("base", "active", ROOTED)

    def test_only_committed_snapshots_are_parents(self, snapshotter: Snapshotter) -> None:
        """A parent that is missing is NotFound, one that is active or a view InvalidArgument."""
        snapshotter.prepare("active", "", ROOTED)
        snapshotter.view("view", "", ROOTED)

        with pytest.raises(NotFound):
            snapshotter.prepare("child", "missing", ROOTED)
        for parent in ("active", "view"):
            with pytest.raises(InvalidArgument):
                snapshotter.prepare("child", parent, ROOTED)

    def test_only_active_snapshots_are_committed(self, snapshotter: Snapshotter) -> None:
        """Commit refuses a view, a committed snapshot and a key that is not there."""
        snapshotter.view("view", "", ROOTED)
        snapshotter.prepare("active", "", ROOTED)
        snapshotter.commit("committed", "active", ROOTED)

        for key in ("view", "committed"):
            with pytest.raises(FailedPrecondition):
                snapshotter.commit("name", key, ROOTED)
        with pytest.raises(NotFound):
            snapshotter.commit("name", "missing", ROOTED)

    def test_what_is_missing_is_not_found(self, snapshotter: Snapshotter) -> None:
        """Every method answers NotFound for a key that is not there."""
        calls: list[Callable[[], object]] = [
            lambda: snapshotter.stat("missing"),
            lambda: snapshotter.usage("missing"),
            lambda: snapshotter.mounts("missing"),
            lambda: snapshotter.remove("missing"),
            lambda: snapshotter.update(Info(Kind.ACTIVE, "missing")),
        ]
        for call in calls:
            with pytest.raises(NotFound):
                call()

    def test_a_view_is_never_committed(self, snapshotter: Snapshotter) -> None:
        """It stays a view."""
        snapshotter.view("view", "", ROOTED)
        with pytest.raises(FailedPrecondition):
            snapshotter.commit("name", "view", ROOTED)
        assert snapshotter.stat("view").kind == Kind.VIEW

    def test_a_committed_snapshot_has_no_mounts(self, snapshotter: Snapshotter) -> None:
        """Nobody may write to it."""
        snapshotter.prepare("key", "", ROOTED)
        snapshotter.commit("name", "key", ROOTED)
        with pytest.raises(FailedPrecondition):
            snapshotter.mounts("name")

    def test_mounts_are_those_of_prepare(self, snapshotter: Snapshotter) -> None:
        """Whoever lost them asks again."""
        prepared = snapshotter.prepare("key", "", ROOTED)
        assert list(snapshotter.mounts("key")) == list(prepared)

    @pytest.mark.parametrize(
        "key", ["a/b/../c", "../../x", "sha256:" + "a" * 64, "ü ñ 你好", "with\nnewline", "k" * 4096, "."]
    )
    def test_keys_and_names_are_free_strings(self, snapshotter: Snapshotter, key: str) -> None:
        """They are names, not paths: slashes, other languages, 4096 characters."""
        snapshotter.prepare(key, "", ROOTED)
        assert snapshotter.stat(key).name == key
        snapshotter.commit(f"{key[:4000]} name", key, ROOTED)
        snapshotter.prepare(key, f"{key[:4000]} name", ROOTED)
        assert snapshotter.stat(key).parent == f"{key[:4000]} name"
        assert {info.name for info in snapshotter.walk()} == {key, f"{key[:4000]} name"}

    def test_a_key_must_not_be_empty(self, snapshotter: Snapshotter) -> None:
        """Nor a name."""
        for make in (snapshotter.prepare, snapshotter.view):
            with pytest.raises(InvalidArgument):
                make("", "", ROOTED)
        snapshotter.prepare("key", "", ROOTED)
        with pytest.raises(InvalidArgument):
            snapshotter.commit("", "key", ROOTED)

    def test_a_removed_snapshot_is_gone(self, snapshotter: Snapshotter) -> None:
        """From stat and from the walk, whatever its kind."""
        snapshotter.prepare("key", "", ROOTED)
        snapshotter.commit("base", "key", ROOTED)
        snapshotter.prepare("active", "base", ROOTED)
        snapshotter.view("view", "base", ROOTED)
        for key in ("active", "view", "base"):
            snapshotter.remove(key)
            with pytest.raises(NotFound):
                snapshotter.stat(key)
        assert list(snapshotter.walk()) == []

    # Labels

    def test_labels_of_prepare_and_view_are_kept(self, snapshotter: Snapshotter) -> None:
        """Stat and walk tell them."""
        snapshotter.prepare("active", "", {**ROOTED, "a": "1"})
        snapshotter.view("view", "", {**ROOTED, "v": "2"})
        assert snapshotter.stat("active").labels == {**ROOTED, "a": "1"}
        assert snapshotter.stat("view").labels == {**ROOTED, "v": "2"}
        assert {info.name: info.labels for info in snapshotter.walk()}["active"] == {**ROOTED, "a": "1"}

    def test_update_of_one_label_leaves_the_others(self, snapshotter: Snapshotter) -> None:
        """A path names what is changed."""
        snapshotter.prepare("key", "", {**ROOTED, "a": "1", "b": "2"})
        snapshotter.update(Info(Kind.ACTIVE, "key", labels={"a": "new"}), ["labels.a"])
        assert snapshotter.stat("key").labels == {**ROOTED, "a": "new", "b": "2"}

    def test_times_are_those_of_creation_and_update(self, snapshotter: Snapshotter) -> None:
        """An update moves the one and never the other."""
        begin = time.time_ns()
        snapshotter.prepare("key", "", ROOTED)
        made = snapshotter.stat("key")
        assert begin <= made.created_at <= made.updated_at <= time.time_ns()
        changed = snapshotter.update(Info(Kind.ACTIVE, "key", labels={**ROOTED, "a": "1"}))
        assert changed.created_at == made.created_at
        assert changed.updated_at > made.updated_at

    @pytest.mark.parametrize("kind", list(Kind))
    @pytest.mark.parametrize("parent", ["", "base"])
    def test_update(self, snapshotter: Snapshotter, kind: Kind, parent: str) -> None:
        """Update changes the labels that its paths name, the time of the update, and nothing else."""
        before = time.time_ns()
        snapshotter.prepare("base key", "", ROOTED)
        snapshotter.commit("base", "base key", ROOTED)
        labels = {**ROOTED, "l1": "v1", "l2": "v2"}
        if kind == Kind.VIEW:
            snapshotter.view("it", parent, labels)
        elif kind == Kind.ACTIVE:
            snapshotter.prepare("it", parent, labels)
        else:
            snapshotter.prepare("key", parent, ROOTED)
            snapshotter.commit("it", "key", labels)
        made = snapshotter.stat("it")
        assert made.labels == labels
        assert before <= made.created_at <= made.updated_at <= time.time_ns()

        replaced = snapshotter.update(Info(kind, "it", "else", {**ROOTED, "l1": "updated", "l3": "v3"}))
        assert replaced == snapshotter.stat("it")
        assert replaced.labels == {**ROOTED, "l1": "updated", "l3": "v3"}
        assert (replaced.parent, replaced.kind, replaced.created_at) == (parent, kind, made.created_at)
        assert replaced.updated_at > made.updated_at

        some = snapshotter.update(Info(kind, "it", labels={"l1": "again", "l4": "unseen"}), ["labels.l1", "labels.l3"])
        assert some.labels == {**ROOTED, "l1": "again"}

        all_ = snapshotter.update(Info(kind, "it", labels={**ROOTED, "l5": "v5"}), ["labels"])
        assert all_.labels == {**ROOTED, "l5": "v5"}

        with pytest.raises(InvalidArgument):
            snapshotter.update(Info(kind, "it", "base", ROOTED), ["parent"])
        assert snapshotter.stat("it") == all_

    def test_commit_replaces_labels(self, snapshotter: Snapshotter) -> None:
        """A committed snapshot has the labels of its commit, not those it was prepared with."""
        snapshotter.prepare("key", "", {**ROOTED, "active": "yes"})
        snapshotter.commit("name", "key", {**ROOTED, "committed": "yes"})

        assert snapshotter.stat("name").labels == {**ROOTED, "committed": "yes"}

    # Removal

    def test_a_removed_key_can_be_used_again(self, snapshotter: Snapshotter) -> None:
        """A removed key is free for a view or another active snapshot, a removed name for another commit."""
        snapshotter.prepare("base key", "", ROOTED)
        snapshotter.commit("base", "base key", ROOTED)

        snapshotter.prepare("key", "base", ROOTED)
        snapshotter.remove("key")
        snapshotter.view("key", "base", ROOTED)
        snapshotter.remove("key")
        for _ in range(2):
            snapshotter.prepare("key", "base", ROOTED)
            snapshotter.commit("name", "key", ROOTED)
            snapshotter.remove("name")

        assert [info.name for info in snapshotter.walk()] == ["base"]

    def test_a_snapshot_with_a_child_stays(self, snapshotter: Snapshotter) -> None:
        """An intermediate snapshot is removable when its child is gone; nothing need be mounted before commit."""
        for name, parent in (("a", ""), ("b", "a"), ("c", "b")):
            snapshotter.prepare(f"key {name}", parent, ROOTED)
            snapshotter.commit(name, f"key {name}", ROOTED)

        for name in ("a", "b"):
            with pytest.raises(FailedPrecondition, match="cannot remove snapshot with child"):
                snapshotter.remove(name)
        for name in ("c", "b", "a"):
            snapshotter.remove(name)

    # Walking

    @pytest.mark.parametrize(
        ("filters", "names"),
        [
            ([], {"base", "active", "view"}),
            (["labels.color==red"], {"active"}),
            (["labels.color"], {"active", "view"}),
            (["labels.color==blue,kind==view"], {"view"}),
            (["kind==active"], {"active"}),
            (["kind==committed"], {"base"}),
            (["name==active", "name==base"], {"active", "base"}),
            (["name==active,labels.color"], {"active"}),
            (["name==base,labels.color"], set()),
            (["parent==base"], {"active", "view"}),
            (['parent!=""'], {"active", "view"}),
        ],
    )
    def test_walk(self, snapshotter: Snapshotter, filters: list[str], names: set[str]) -> None:
        """Walk yields what matches one of the filters, described as stat does."""
        snapshotter.prepare("key", "", ROOTED)
        snapshotter.commit("base", "key", ROOTED)
        snapshotter.prepare("active", "base", {**ROOTED, "color": "red"})
        snapshotter.view("view", "base", {**ROOTED, "color": "blue"})

        found = list(snapshotter.walk(filters))

        assert {info.name for info in found} == names
        assert len(found) == len(names)
        assert all(info == snapshotter.stat(info.name) for info in found)

    def test_a_filter_that_does_not_parse_is_refused(self, snapshotter: Snapshotter) -> None:
        """A malformed filter is InvalidArgument."""
        with pytest.raises(InvalidArgument):
            list(snapshotter.walk(["name=="]))

    def test_other_methods_work_during_a_walk(self, snapshotter: Snapshotter) -> None:
        """Stat, prepare and remove from inside a walk neither wait for it nor disturb it."""
        for name in ("a", "b", "c"):
            snapshotter.prepare(name, "", ROOTED)

        seen = []
        for info in snapshotter.walk():
            assert snapshotter.stat(info.name) == info
            snapshotter.prepare(f"during {info.name}", "", ROOTED)
            snapshotter.remove(f"during {info.name}")
            seen.append(info.name)

        assert sorted(name for name in seen if not name.startswith("during")) == ["a", "b", "c"]

    # What is in the files

    @needs_root
    def test_usage_counts_inodes_and_bytes(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """Usage grows with what is written, counts hard links once, and is kept at commit."""
        mounts = snapshotter.prepare("key", "", ROOTED)
        empty = snapshotter.usage("key")
        with shown(mounts, tmp_path) as root:
            (root / "file").write_bytes(b"x" * 100_000)
            (root / "link").hardlink_to(root / "file")
        full = snapshotter.usage("key")
        snapshotter.commit("name", "key", ROOTED)

        assert full.inodes == empty.inodes + 1
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
        parent = ""
        for number in range(LAYERS):

            def change(root: Path, number: int = number) -> None:
                write(root / "bottom", f"layer {number}")
                write(root / f"top{number}", f"{number}")
                shutil.rmtree(root / "added", ignore_errors=True)
                write(root / f"added/file{number}", f"{number}")

            with shown(snapshotter.prepare(f"key{number}", parent, ROOTED), tmp_path) as root:
                assert tree(root) == tree(flat)
                change(root)
                change(flat)
                assert tree(root) == tree(flat)
            parent = f"layer{number}"
            snapshotter.commit(parent, f"key{number}", ROOTED)

        assert look(snapshotter, tmp_path, parent) == tree(flat)

    # The rest

    def test_cleanup_keeps_what_is_there(self, snapshotter: Snapshotter) -> None:
        """Cleanup, where there is any, does not touch snapshots that exist."""
        snapshotter.prepare("removed", "", ROOTED)
        snapshotter.remove("removed")
        mounts = snapshotter.prepare("kept", "", ROOTED)

        try:
            snapshotter.cleanup()
        except Unimplemented:
            pass

        assert snapshotter.mounts("kept") == mounts
        assert all(Path(mount.source).exists() for mount in mounts if mount.type == "bind")

    def test_close_twice(self, snapshotter: Snapshotter) -> None:
        """Closing a second time is nothing."""
        close = getattr(snapshotter, "close", None)
        if close is None:
            pytest.skip("this snapshotter has nothing to close")
        close()
        close()
