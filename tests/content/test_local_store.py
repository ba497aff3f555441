"""The content store on disk: the suite, containerd's layout, crashes, full disks."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from windlass_conformance.content import ContentSuite, digest_of, digests, ingest, read_blob, refs
from windlass_content.ingest import format_time, ingest_path, parse_time
from windlass_content.store import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "content")


def open_descriptors() -> set[str]:
    return {
        os.readlink(f"/proc/self/fd/{number}")
        for number in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{number}")
    }


class TestSuite(ContentSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore(tmp_path)


def test_blob_lies_where_containerd_looks(store: LocalStore, tmp_path: Path) -> None:
    """blobs/<algorithm>/<hex>, read-only, and no more of its ingest."""
    digest = ingest(store, "ref", b"data", {})

    blob = tmp_path / "content/blobs/sha256" / digest.removeprefix("sha256:")
    assert blob.read_bytes() == b"data"
    assert blob.stat().st_mode & 0o777 == 0o444
    assert sorted(os.listdir(tmp_path / "content")) == ["blobs", "ingest"]
    assert os.listdir(tmp_path / "content/ingest") == []


def test_ingest_lies_where_containerd_looks(store: LocalStore, tmp_path: Path) -> None:
    """ingest/<sha256 of the ref>/, with times in RFC 3339."""
    with closing(store.writer("default/1/r9", 10)) as writer:
        writer.write(b"x")

    # As Debian's containerd 1.6.20 named and wrote the same ingest.
    path = tmp_path / "content/ingest/4af860b6deb3cb51e2cb196897cea7ab72d87a9016819b888f19d6eb52713be5"
    assert sorted(os.listdir(path)) == ["data", "ref", "startedat", "total", "updatedat"]
    assert (path / "ref").read_text() == "default/1/r9"
    assert (path / "total").read_text() == "10"
    assert parse_time((path / "startedat").read_text()) == store.status("default/1/r9").started_at
    assert (path / "data").read_bytes() == b"x"


def test_ingest_of_containerd_is_continued(store: LocalStore, tmp_path: Path) -> None:
    """A directory can move between the two."""
    path = tmp_path / "content/ingest/4af860b6deb3cb51e2cb196897cea7ab72d87a9016819b888f19d6eb52713be5"
    path.mkdir(parents=True)
    for name, content in {
        "ref": "default/1/r9",
        "data": "x\n",
        "total": "10",
        "startedat": "2026-11-23T21:26:15.436523466Z",
        "updatedat": "2026-11-23T21:26:16.4271151Z",
    }.items():
        (path / name).write_text(content)

    with closing(store.writer("default/1/r9", 10)) as writer:
        status = writer.status()
        assert (status.offset, status.total, status.started_at) == (2, 10, 1795469175436523466)
        assert writer.digest() == digest_of(b"x\n")


@pytest.mark.parametrize("text", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.1Z", "2026-01-02T03:04:05.000000001Z"])
def test_times_are_written_as_go_writes_them(text: str) -> None:
    assert format_time(parse_time(text)) == text


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00", "9" * 5000])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


@pytest.mark.parametrize(
    ("name", "content"),
    [("ref", "other"), ("startedat", "never"), ("updatedat", ""), ("total", "many"), ("total", "-1"), ("ref", None)],
)
def test_ingest_whose_files_do_not_fit_starts_again(
    store: LocalStore, tmp_path: Path, name: str, content: str | None
) -> None:
    """Silently, as in containerd (docs/containerd 3.5)."""
    with closing(store.writer("ref", 10)) as writer:
        writer.write(b"abc")
    path = ingest_path(tmp_path / "content/ingest", "ref")
    (path / name).unlink() if content is None else (path / name).write_text(content)

    assert refs(store) == []
    with closing(store.writer("ref", 10)) as writer:
        assert writer.status().offset == 0
    assert refs(store) == ["ref"]


def test_start_sweeps_what_a_crash_left(store: LocalStore, tmp_path: Path) -> None:
    """Directories that were never ingests, or whose data is a blob by now; real ingests stay."""
    store.writer("kept").close()
    ingests = tmp_path / "content/ingest"
    (ingests / "being-made").mkdir()
    (ingests / "being-made/data").touch()
    (ingests / "committed").mkdir()
    (ingests / "committed/ref").write_text("committed")

    assert refs(LocalStore(tmp_path / "content")) == ["kept"]
    assert os.listdir(ingests) == [ingest_path(ingests, "kept").name]


def test_labels_left_by_a_crash_do_not_return(store: LocalStore, tmp_path: Path) -> None:
    """A delete removes the blob, then its labels."""
    digest = ingest(store, "ref", b"x", {"old": "label"})
    (tmp_path / "content/blobs/sha256" / digest[7:]).unlink()

    ingest(store, "ref", b"x", {})

    assert dict(store.info(digest).labels) == {}


def test_labels_that_cannot_be_read_are_named(store: LocalStore, tmp_path: Path) -> None:
    digest = ingest(store, "ref", b"x", {"a": "label"})
    (tmp_path / "content/labels/sha256" / digest[7:]).write_text("{")

    with pytest.raises(DataLoss, match=r"remove .*labels"):
        store.info(digest)


def test_what_lies_among_the_blobs_and_is_none_is_not_seen(store: LocalStore, tmp_path: Path) -> None:
    """Other names, directories and symbolic links."""
    digest = ingest(store, "ref", b"x", {})
    blobs = tmp_path / "content/blobs/sha256"
    (blobs / "README").write_text("hello")
    (blobs / ("1" * 64)).mkdir()
    (blobs / ("2" * 64)).symlink_to("/etc/passwd")

    assert digests(store) == [digest]
    for digit in "12":
        with pytest.raises(NotFound):
            store.info("sha256:" + digit * 64)
        with pytest.raises(NotFound):
            store.reader(Descriptor("", "sha256:" + digit * 64, 0))


def test_every_descriptor_is_closed(store: LocalStore, tmp_path: Path) -> None:
    """After success and after every kind of refusal."""
    ingest(store, "ref", b"x")
    for commit in (lambda w: w.commit(5), lambda w: w.commit(), lambda w: None):
        with closing(store.writer("again")) as writer:
            writer.write(b"x")
            try:
                commit(writer)
            except (FailedPrecondition, AlreadyExists):
                pass
    read_blob(store, digest_of(b"x"))
    next(iter(store.walk()))
    gc.collect()

    assert [path for path in open_descriptors() if str(tmp_path) in path] == []


def test_close_waits_for_a_write_in_another_thread(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives up closes at once, and the descriptor's number may be someone else's a moment later."""
    writing, goes_on, closed = threading.Event(), threading.Event(), threading.Event()
    real_write = os.write

    def slow_write(descriptor: int, data: memoryview) -> int:
        if data == b"x" * 100:
            writing.set()
            assert goes_on.wait(10)
        return real_write(descriptor, data)

    def close() -> None:
        writer.close()
        closed.set()

    writer = store.writer("ref")
    monkeypatch.setattr("windlass_content.disk.os.write", slow_write)
    threads = [threading.Thread(target=call) for call in (lambda: writer.write(b"x" * 100), close)]
    threads[0].start()
    assert writing.wait(10)
    threads[1].start()
    assert not closed.wait(0.05)
    goes_on.set()
    for thread in threads:
        thread.join(10)

    monkeypatch.undo()
    assert closed.is_set()
    assert store.status("ref").offset == 100


def test_commit_syncs_the_data_before_its_name(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a blob is there in full or not at all, and not lost once commit has returned."""
    synced: list[str] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    ingest(store, "ref", b"x", {})

    assert synced == [str(ingest_path(tmp_path / "content/ingest", "ref") / "data"), f"{tmp_path}/content/blobs/sha256"]


def test_data_that_was_changed_behind_the_writer_is_not_committed(store: LocalStore, tmp_path: Path) -> None:
    with closing(store.writer("ref")) as writer:
        writer.write(b"12345678")
        os.truncate(ingest_path(tmp_path / "content/ingest", "ref") / "data", 4)
        with pytest.raises(DataLoss, match="4 bytes on disk, 8 were written"):
            writer.commit()
    assert digests(store) == []


def test_ref_longer_than_its_limit_is_refused(store: LocalStore) -> None:
    """Clients' refs have up to 64 KiB, and a prefix of the metadata store's."""
    long = "default/1/" + "x" * (64 << 10)
    store.writer(long).close()
    assert store.status(long).ref == long
    with pytest.raises(InvalidArgument, match="131072"):
        store.writer("x" * 131073)


def test_write_that_fails_leaves_the_ingest_as_it_was(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when part of it has been written already."""
    real_write = os.write
    full = iter([False, True])

    def write(descriptor: int, data: memoryview) -> int:
        if next(full):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data[: len(data) // 2])

    with closing(store.writer("ref")) as writer:
        writer.write(b"before")
        monkeypatch.setattr("windlass_content.disk.os.write", write)
        with pytest.raises(ResourceExhausted, match=f"ingest ref: no space left in {tmp_path}"):
            writer.write(b"12345678")
        monkeypatch.undo()
        assert writer.status().offset == 6
        writer.write(b" after")
        writer.commit(expected=digest_of(b"before after"))
    assert read_blob(store, digest_of(b"before after")) == b"before after"


def test_failed_publishing_leaves_an_ingest_that_can_be_committed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise OSError(errno.EDQUOT, "Quota exceeded")

    with closing(store.writer("ref")) as writer:
        writer.write(b"x")
        monkeypatch.setattr(store, "publish", fail)
        with pytest.raises(ResourceExhausted):
            writer.commit()
        monkeypatch.undo()
        writer.write(b"y")
        writer.commit()
    assert digests(store) == [digest_of(b"xy")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs of 1 MiB needs root")
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=40", "none", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_full_disk_is_told_and_everything_before_it_stays(small_disk: Path) -> None:
    """The error names ingest and directory; removal works; then there is room again."""
    store = LocalStore(small_disk)
    kept = ingest(store, "kept", b"k" * 400_000)
    with closing(store.writer("big")) as writer:
        with pytest.raises(ResourceExhausted, match=r"ingest big: no space left in .*small.*make room"):
            while True:
                writer.write(b"b" * 50_000)
        assert writer.status().offset % 50_000 == 0
    assert store.status("big").offset > 0
    assert digests(store) == [kept]

    store.abort("big")
    store.delete(kept)
    ingest(store, "again", b"a" * 800_000)
    assert refs(store) == []


def test_disk_without_inodes_leaves_no_ingest_behind(small_disk: Path) -> None:
    """What cannot be begun is not there, and its ref is free."""
    store = LocalStore(small_disk)
    ingest(store, "first", b"x")
    fillers: list[Path] = []
    while True:
        try:
            fillers.append(small_disk / f"filler{len(fillers)}")
            fillers[-1].touch()
        except OSError:
            break
    fillers[0].unlink()
    fillers[1].unlink()

    for _ in range(2):
        with pytest.raises(ResourceExhausted, match="open ingest late"):
            store.writer("late", 5)
    assert refs(store) == []
    assert os.listdir(small_disk / "ingest") == []
