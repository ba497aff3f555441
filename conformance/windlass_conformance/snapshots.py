"""The promises of `windlass.contracts.snapshots.Snapshotter`, one test each.

The cases are those of docs/containerd 8.2. The subclass provides a fixture
``snapshotter`` that gives a fresh, empty snapshotter to each test.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from windlass.contracts.snapshots import Info, Kind, Snapshotter, Usage
from windlass.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from windlass_conformance.snapshot_files import ROOTED, FileCases, contents, layer, needs_root, shown, write

FREE_STRINGS = ("a/b/../c", "../../x", "sha256:" + "a" * 64, "ü ñ 你好", "with\nnewline", "k" * 4096, ".")


class SnapshotterSuite(FileCases):
    """What a snapshotter promises; see the module for how to run it."""

    certifies = "snapshotter"

    @pytest.fixture
    def snapshotter(self) -> Snapshotter:
        """Give the snapshotter under test; the subclass provides it."""
        raise NotImplementedError("the subclass provides the snapshotter under test")

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
        """Stat of an active snapshot returns its key, its kind and its parent."""
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
        """It cannot be written to."""
        snapshotter.prepare("key", "", ROOTED)
        snapshotter.commit("name", "key", ROOTED)
        with pytest.raises(FailedPrecondition):
            snapshotter.mounts("name")

    def test_mounts_are_those_of_prepare(self, snapshotter: Snapshotter) -> None:
        """A caller that has lost them can ask again."""
        prepared = snapshotter.prepare("key", "", ROOTED)
        assert list(snapshotter.mounts("key")) == list(prepared)

    def test_a_view_takes_nothing(self, snapshotter: Snapshotter) -> None:
        """Only written data counts, as in containerd: the usage of a view is 0."""
        snapshotter.prepare("active")
        snapshotter.commit("committed", "active")
        snapshotter.view("view", "committed")
        snapshotter.view("bare")

        assert snapshotter.usage("view") == snapshotter.usage("bare") == Usage(0, 0)

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
        """Stat and walk return them."""
        snapshotter.prepare("active", "", {**ROOTED, "a": "1"})
        snapshotter.view("view", "", {**ROOTED, "v": "2"})
        assert snapshotter.stat("active").labels == {**ROOTED, "a": "1"}
        assert snapshotter.stat("view").labels == {**ROOTED, "v": "2"}
        assert {info.name: info.labels for info in snapshotter.walk()}["active"] == {**ROOTED, "a": "1"}

    def test_update_of_one_label_leaves_the_others(self, snapshotter: Snapshotter) -> None:
        """A path names the field to change."""
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
