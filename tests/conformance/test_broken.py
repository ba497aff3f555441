"""Plugins that are broken on purpose: each defect is caught, by the case whose name says it."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from metadata.memory_content import MemoryContent

from windlass.contracts.content import Info as Blob
from windlass.contracts.content import Status, Writer
from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Info, Kind, Usage
from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, FailedPrecondition, NotFound
from windlass_conformance.content import ContentSuite
from windlass_conformance.snapshots import SnapshotterSuite
from windlass_linux import mounting
from windlass_snapshot_native.snapshotter import NativeSnapshotter

Labels = Mapping[str, str] | None
CAUGHT = (AssertionError, pytest.fail.Exception, NotFound)
"""What a case ends with that a plugin fails: what it asserts, or what should be there and is not found."""


class LosesTheParent(NativeSnapshotter):
    def stat(self, key: str) -> Info:
        return dataclasses.replace(super().stat(key), parent="")


class KeepsTheKey(NativeSnapshotter):
    def commit(self, name: str, key: str, labels: Labels = None, parent: str = "") -> None:
        super().commit(name, key, labels, parent)
        super().prepare(key, name)


class LosesLabels(NativeSnapshotter):
    def prepare(self, key: str, parent: str = "", labels: Labels = None) -> tuple[Mount, ...]:
        return super().prepare(key, parent)


class KeepsLabelsAtCommit(NativeSnapshotter):
    def commit(self, name: str, key: str, labels: Labels = None, parent: str = "") -> None:
        super().commit(name, key, {**self.stat(key).labels, **(labels or {})}, parent)


class UpdatesAllLabels(NativeSnapshotter):
    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        return super().update(info)


class MovesTheCreation(NativeSnapshotter):
    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        changed = super().update(info, fieldpaths)
        return dataclasses.replace(changed, created_at=changed.updated_at)


class LeavesTheTimeOfTheUpdate(NativeSnapshotter):
    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        changed = super().update(info, fieldpaths)
        return dataclasses.replace(changed, updated_at=changed.created_at)


class ChangesAnything(NativeSnapshotter):
    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        return super().update(info, [path for path in fieldpaths if path.startswith("labels")])


class UsesNothing(NativeSnapshotter):
    def usage(self, key: str) -> Usage:
        super().usage(key)
        return Usage(0, 0)


class ForgetsUsageAtCommit(NativeSnapshotter):
    def usage(self, key: str) -> Usage:
        return super().usage(key) if self.stat(key).kind == Kind.ACTIVE else Usage(0, 0)


class ShowsWritableViews(NativeSnapshotter):
    def view(self, key: str, parent: str = "", labels: Labels = None) -> tuple[Mount, ...]:
        return tuple(dataclasses.replace(each, options=("rbind", "rw")) for each in super().view(key, parent, labels))


class CommitsViews(NativeSnapshotter):
    def commit(self, name: str, key: str, labels: Labels = None, parent: str = "") -> None:
        if self.stat(key).kind == Kind.VIEW:
            self.remove(key)
            self.prepare(key)
        super().commit(name, key, labels, parent)


class RemovesParents(NativeSnapshotter):
    def remove(self, key: str) -> None:
        for info in list(self.walk([f'parent=="{key}"'])):
            self.remove(info.name)
        super().remove(key)


class RemovesNothing(NativeSnapshotter):
    def remove(self, key: str) -> None:
        self.stat(key)


class RemovesWhatIsMissing(NativeSnapshotter):
    def remove(self, key: str) -> None:
        try:
            super().remove(key)
        except NotFound:
            return


class TakesTakenKeys(NativeSnapshotter):
    def prepare(self, key: str, parent: str = "", labels: Labels = None) -> tuple[Mount, ...]:
        try:
            return super().prepare(key, parent, labels)
        except AlreadyExists:
            return ()


class TakesActiveParents(NativeSnapshotter):
    def prepare(self, key: str, parent: str = "", labels: Labels = None) -> tuple[Mount, ...]:
        if parent and self.stat(parent).kind != Kind.COMMITTED:
            parent = ""
        return super().prepare(key, parent, labels)


class MountsCommitted(NativeSnapshotter):
    def mounts(self, key: str) -> tuple[Mount, ...]:
        try:
            return super().mounts(key)
        except FailedPrecondition:
            return ()


class MountsSomethingElse(NativeSnapshotter):
    def mounts(self, key: str) -> tuple[Mount, ...]:
        return tuple(dataclasses.replace(each, source="/") for each in super().mounts(key))


class TakesKeysForPaths(NativeSnapshotter):
    def prepare(self, key: str, parent: str = "", labels: Labels = None) -> tuple[Mount, ...]:
        return super().prepare(os.path.normpath(key), parent, labels)


class CutsLongKeys(NativeSnapshotter):
    def prepare(self, key: str, parent: str = "", labels: Labels = None) -> tuple[Mount, ...]:
        return super().prepare(key[:255], parent, labels)


class TakesEmptyKeys(NativeSnapshotter):
    def view(self, key: str, parent: str = "", labels: Labels = None) -> tuple[Mount, ...]:
        return super().view(key or "unnamed", parent, labels)


class IgnoresFilters(NativeSnapshotter):
    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        return super().walk()


class TakesAllFiltersAtOnce(NativeSnapshotter):
    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        return super().walk([",".join(filters)] if filters else [])


class WalksTwice(NativeSnapshotter):
    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        return (info for info in super().walk(filters) for _ in range(2))


class DescribesViewsAsActive(NativeSnapshotter):
    def stat(self, key: str) -> Info:
        info = super().stat(key)
        return dataclasses.replace(info, kind=Kind.ACTIVE) if info.kind == Kind.VIEW else info


class MeasuresViews(NativeSnapshotter):
    def usage(self, key: str) -> Usage:
        return Usage(1, 4096) if self.stat(key).kind == Kind.VIEW else super().usage(key)


class StartsEmpty(NativeSnapshotter):
    """On a parent, whose files are not there."""

    def prepare(self, key: str, parent: str = "", labels: Labels = None) -> tuple[Mount, ...]:
        mounts = super().prepare(key, parent, labels)
        for each in Path(mounts[0].source).iterdir():
            if each.is_file():
                each.unlink()
        return mounts


class SharesFilesWithTheParent(NativeSnapshotter):
    """A child's changes are the parent's."""

    def prepare(self, key: str, parent: str = "", labels: Labels = None) -> tuple[Mount, ...]:
        mounts = super().prepare(key, parent, labels)
        (below,) = (m.source for m in super().view(f"look {key}", parent)) if parent else (mounts[0].source,)
        return (Mount("bind", below, ("rbind", "rw")),)


class ForgetsOwners(NativeSnapshotter):
    def commit(self, name: str, key: str, labels: Labels = None, parent: str = "") -> None:
        (mount,) = self.mounts(key) if self.stat(key).kind == Kind.ACTIVE else (None,)
        if mount is not None:
            for top, directories, files in os.walk(mount.source):
                for each in (*directories, *files):
                    os.chown(f"{top}/{each}", 0, 0, follow_symlinks=False)
        super().commit(name, key, labels, parent)


class MakesRootsPrivate(NativeSnapshotter):
    def prepare(self, key: str, parent: str = "", labels: Labels = None) -> tuple[Mount, ...]:
        mounts = super().prepare(key, parent, labels)
        Path(mounts[0].source).chmod(0o700)
        return mounts


class CleansUpEverything(NativeSnapshotter):
    def cleanup(self) -> None:
        for info in list(self.walk()):
            self.remove(info.name)


SNAPSHOTTERS: tuple[tuple[type[NativeSnapshotter], str], ...] = (
    (LosesTheParent, "test_parents_form_a_chain"),
    (KeepsTheKey, "test_commit_takes_the_key_away"),
    (LosesLabels, "test_labels_of_prepare_and_view_are_kept"),
    (KeepsLabelsAtCommit, "test_commit_replaces_labels"),
    (UpdatesAllLabels, "test_update_of_one_label_leaves_the_others"),
    (MovesTheCreation, "test_times_are_those_of_creation_and_update"),
    (LeavesTheTimeOfTheUpdate, "test_times_are_those_of_creation_and_update"),
    (ChangesAnything, "test_update"),
    (UsesNothing, "test_usage_counts_inodes_and_bytes"),
    (ForgetsUsageAtCommit, "test_usage_counts_inodes_and_bytes"),
    (ShowsWritableViews, "test_a_view_is_read_only"),
    (CommitsViews, "test_a_view_is_never_committed"),
    (RemovesParents, "test_a_snapshot_with_a_child_stays"),
    (RemovesNothing, "test_a_removed_snapshot_is_gone"),
    (RemovesWhatIsMissing, "test_what_is_missing_is_not_found"),
    (TakesTakenKeys, "test_a_key_is_used_once"),
    (TakesActiveParents, "test_only_committed_snapshots_are_parents"),
    (MountsCommitted, "test_a_committed_snapshot_has_no_mounts"),
    (MountsSomethingElse, "test_mounts_are_those_of_prepare"),
    (TakesKeysForPaths, "test_keys_and_names_are_free_strings"),
    (CutsLongKeys, "test_keys_and_names_are_free_strings"),
    (TakesEmptyKeys, "test_a_key_must_not_be_empty"),
    (IgnoresFilters, "test_walk"),
    (TakesAllFiltersAtOnce, "test_walk"),
    (WalksTwice, "test_walk"),
    (DescribesViewsAsActive, "test_a_view_is_never_committed"),
    (MeasuresViews, "test_a_view_takes_nothing"),
    (StartsEmpty, "test_basic"),
    (SharesFilesWithTheParent, "test_a_snapshot_does_not_change_with_its_children"),
    (ForgetsOwners, "test_owners_change"),
    (MakesRootsPrivate, "test_the_root_of_a_fresh_snapshot_has_mode_0755"),
    (CleansUpEverything, "test_cleanup_keeps_what_is_there"),
)


class Tampered:
    """A writer or reader that does something else than it should."""

    # Any, here and below: whatever attribute is asked for.
    def __init__(self, inner: Any, **other: Any) -> None:
        self.__dict__.update(other)
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class TakesAnyDigest(MemoryContent):
    def writer(self, ref: str, size: int = 0, expected: str = "", media_type: str = "") -> Any:
        inner = super().writer(ref, size, expected)
        return Tampered(inner, commit=lambda size=0, expected="", labels=None: inner.commit(size, "", labels))


class TakesAnySize(MemoryContent):
    def writer(self, ref: str, size: int = 0, expected: str = "", media_type: str = "") -> Any:
        inner = super().writer(ref, size, expected)
        return Tampered(inner, commit=lambda size=0, expected="", labels=None: inner.commit(0, expected, labels))


class LosesLabelsOfBlobs(MemoryContent):
    def writer(self, ref: str, size: int = 0, expected: str = "", media_type: str = "") -> Any:
        inner = super().writer(ref, size, expected)
        return Tampered(inner, commit=lambda size=0, expected="", labels=None: inner.commit(size, expected))


class LetsTwoWrite(MemoryContent):
    def writer(self, ref: str, size: int = 0, expected: str = "", media_type: str = "") -> Writer:
        ingest = self.ingests.get(ref)
        if ingest is not None:
            ingest.writer = None
        return super().writer(ref, size, expected)


class StartsAgainInPlaceOfContinuing(MemoryContent):
    def writer(self, ref: str, size: int = 0, expected: str = "", media_type: str = "") -> Writer:
        writer = super().writer(ref, size, expected)
        writer.truncate(0)
        return writer


class AbortsNothing(MemoryContent):
    def abort(self, ref: str) -> None:
        self.status(ref)


class WritesWhatIsThere(MemoryContent):
    def writer(self, ref: str, size: int = 0, expected: str = "", media_type: str = "") -> Writer:
        return super().writer(ref, size)


class ReadsTooMuch(MemoryContent):
    def reader(self, desc: Descriptor) -> Any:
        inner = super().reader(desc)
        return Tampered(inner, read_at=lambda offset, length: inner.read_at(offset, length) or b"\0" * length)


class ReadsFromTheStart(MemoryContent):
    def reader(self, desc: Descriptor) -> Any:
        inner = super().reader(desc)
        return Tampered(inner, read_at=lambda offset, length: inner.read_at(0, length) if offset < inner.size else b"")


class DeletesNothing(MemoryContent):
    def delete(self, digest: str) -> None:
        self.info(digest)


class HidesIngests(MemoryContent):
    def statuses(self, filters: Sequence[str] = ()) -> list[Status]:
        return []


class CountsNoBytes(MemoryContent):
    def status(self, ref: str) -> Status:
        return dataclasses.replace(super().status(ref), offset=0)


class UpdatesAllLabelsOfBlobs(MemoryContent):
    def update(self, info: Blob, fieldpaths: Sequence[str] = ()) -> Blob:
        return super().update(info)


class IgnoresFiltersOfBlobs(MemoryContent):
    def walk(self, filters: Sequence[str] = ()) -> Iterator[Blob]:
        return super().walk()


class MixesUpDigests(MemoryContent):
    """Takes any text for one."""

    def info(self, digest: str) -> Blob:
        if ":" not in digest:
            raise NotFound(f"no {digest}")
        return super().info(digest)


class TakesEmptyRefs(MemoryContent):
    def writer(self, ref: str, size: int = 0, expected: str = "", media_type: str = "") -> Writer:
        return super().writer(ref or "unnamed", size, expected)


CONTENTS: tuple[tuple[type[MemoryContent], str], ...] = (
    (TakesAnyDigest, "test_commit_that_does_not_fit_is_refused"),
    (TakesAnySize, "test_commit_that_does_not_fit_is_refused"),
    (LosesLabelsOfBlobs, "test_labels_of_commit_are_kept"),
    (LetsTwoWrite, "test_second_writer_of_a_ref_is_refused"),
    (StartsAgainInPlaceOfContinuing, "test_ingest_continues_where_it_was_closed"),
    (AbortsNothing, "test_abort_gives_an_ingest_up"),
    (WritesWhatIsThere, "test_writer_for_a_blob_that_exists_is_refused"),
    (ReadsTooMuch, "test_small_blob_is_read_to_its_end_and_no_further"),
    (ReadsFromTheStart, "test_small_blob_is_read_to_its_end_and_no_further"),
    (DeletesNothing, "test_deleted_blob_is_gone_and_can_come_back"),
    (HidesIngests, "test_statuses_are_selected_by_ref"),
    (CountsNoBytes, "test_status_follows_every_write"),
    (UpdatesAllLabelsOfBlobs, "test_labels_are_replaced_as_a_whole_or_one_by_one"),
    (IgnoresFiltersOfBlobs, "test_walk_yields_what_the_filters_select"),
    (MixesUpDigests, "test_what_is_no_digest_is_refused"),
    (TakesEmptyRefs, "test_ref_must_not_be_empty"),
)


def arguments(case: Callable[..., object]) -> list[dict[str, Any]]:
    """Return the parameters of a case, one mapping for each time it is run."""
    sets: list[dict[str, Any]] = [{}]
    for mark in getattr(case, "pytestmark", []):
        if mark.name == "parametrize":
            names = re.split(r"\s*,\s*", mark.args[0]) if isinstance(mark.args[0], str) else list(mark.args[0])
            rows = [dict(zip(names, row if len(names) > 1 else (row,), strict=True)) for row in mark.args[1]]
            sets = [{**known, **row} for known in sets for row in rows]
    return sets


def holds(suite: object, name: str, make: Callable[[Path], object], fixture: str, tmp_path: Path) -> bool:
    """Tell whether a case of a suite passes, whichever parameters it has."""
    case = getattr(suite, name)
    for number, given in enumerate(arguments(case)):
        place = tmp_path / str(number)
        place.mkdir()
        subject = make(place / "root")
        known = {fixture: subject, "tmp_path": place, **given}
        umask = os.umask(0)
        try:
            case(**{each: known[each] for each in inspect.signature(case).parameters})
        except CAUGHT:
            return False
        finally:
            os.umask(umask)  # as the suites' own fixture does
            mounting.unmount_all(place)
            getattr(subject, "close", lambda: None)()
    return True


@pytest.mark.skipif(os.geteuid() != 0, reason="snapshots are mounted, which needs root")
@pytest.mark.parametrize(("broken", "case"), SNAPSHOTTERS, ids=[broken.__name__ for broken, _ in SNAPSHOTTERS])
def test_a_broken_snapshotter_is_caught(broken: type[NativeSnapshotter], case: str, tmp_path: Path) -> None:
    """By the case, which the sound one passes."""
    for kind, expected in ((NativeSnapshotter, True), (broken, False)):
        place = tmp_path / kind.__name__
        place.mkdir()
        assert holds(SnapshotterSuite(), case, kind, "snapshotter", place) is expected


@pytest.mark.parametrize(("broken", "case"), CONTENTS, ids=[broken.__name__ for broken, _ in CONTENTS])
def test_a_broken_content_store_is_caught(broken: type[MemoryContent], case: str, tmp_path: Path) -> None:
    """By the case, which the sound one passes."""
    for kind, expected in ((MemoryContent, True), (broken, False)):
        place = tmp_path / kind.__name__
        place.mkdir()
        assert holds(ContentSuite(), case, lambda _: kind(), "store", place) is expected  # noqa: B023 - called at once
