"""The promises of `windlass.contracts.content.ContentStore`, one test each.

The cases are those of docs/containerd 8.1 that need no namespaces. The subclass provides
a fixture ``store`` that gives a fresh, empty content store to each test.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from windlass.contracts.content import ContentStore, Info, Writer
from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unavailable, Unimplemented

KEPT: Mapping[str, str] = {"containerd.io/gc.root": "2026-01-01T00:00:00Z"}
"""Keeps a blob from garbage collection, should the store have one."""

SMALL_WRITE = 32
SIZES = (500, 5_000, 50_000)
WRITTEN_PERCENT = (0, 10, 50, 90, 100)
UNKNOWN = "sha256:" + "0" * 64
MISFITS = ((255, ""), (257, ""), (256, UNKNOWN), (0, UNKNOWN))
"""Sizes and digests that a blob of 256 bytes does not have."""
EMPTY = "sha256:" + hashlib.sha256().hexdigest()


def digest_of(data: bytes) -> str:
    """Return the sha256 digest of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def noise(seed: str, size: int) -> bytes:
    """Return ``size`` bytes that look random and are the same every time."""
    return hashlib.shake_256(seed.encode()).digest(size)


def ingest(store: ContentStore, ref: str, data: bytes, labels: Mapping[str, str] = KEPT) -> str:
    """Write and commit a blob; returns its digest."""
    with closing(store.writer(ref, len(data))) as writer:
        write_all(writer, data)
        writer.commit(len(data), digest_of(data), labels)
    return digest_of(data)


def write_all(writer: Writer, data: bytes, step: int = 1 << 20) -> None:
    """Write ``data`` in pieces."""
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        assert writer.write(piece) == len(piece)


def read_blob(store: ContentStore, digest: str) -> bytes:
    """Return all bytes of a blob."""
    with closing(store.reader(Descriptor("", digest, 0))) as reader:
        return reader.read_at(0, reader.size)


def refs(store: ContentStore, *filters: str) -> list[str]:
    """Return the refs of the ingests under way."""
    return sorted(status.ref for status in store.statuses(filters))


def digests(store: ContentStore, *filters: str) -> list[str]:
    """Return the digests of the blobs that match."""
    return sorted(info.digest for info in store.walk(filters))


class ContentSuite:
    """The promises of every content store."""

    certifies = "content"

    @pytest.fixture
    def store(self) -> ContentStore:
        """Provide the store under test, empty."""
        raise NotImplementedError("the subclass provides the content store under test")

    # Writing a blob

    def test_five_writers_at_once_make_five_blobs(self, store: ContentStore) -> None:
        """Refs are independent; size and digest may be given when the writer is opened, at commit, or never."""
        blobs = [noise(f"writer {number}", size) for number, size in enumerate((1 << 16, 300, 7000, 4096, 32 << 20))]
        opened = ((0, ""), (300, ""), (0, digest_of(blobs[2])), (4096, digest_of(blobs[3])), (32 << 20, ""))

        def write(number: int) -> Info:
            data, (size, expected) = blobs[number], opened[number]
            started = time.time_ns()
            with closing(store.writer(f"ref-{number}", size, expected)) as writer:
                write_all(writer, data, SMALL_WRITE if len(data) < 1 << 20 else 1 << 20)
                assert writer.digest() == digest_of(data)
                writer.commit(labels={**KEPT, "number": str(number)})
            info = store.info(digest_of(data))
            assert started <= info.created_at <= time.time_ns()
            assert started <= info.updated_at <= time.time_ns()
            return info

        with ThreadPoolExecutor(len(blobs)) as pool:
            infos = list(pool.map(write, range(len(blobs))))

        assert [info.size for info in infos] == [len(data) for data in blobs]
        assert [dict(info.labels) for info in infos] == [{**KEPT, "number": str(number)} for number in range(5)]
        assert [read_blob(store, digest_of(data)) == data for data in blobs] == [True] * 5
        assert refs(store) == []

    def test_small_blob_is_read_to_its_end_and_no_further(self, store: ContentStore) -> None:
        """A read of more than the rest returns the rest, and then nothing."""
        digest = ingest(store, "small", b"foobar")

        with closing(store.reader(Descriptor("", digest, 6))) as reader:
            assert reader.size == 6
            assert reader.read_at(0, 7) == b"foobar"
            assert reader.read_at(2, 3) == b"oba"
            assert reader.read_at(6, 1) == b""
            assert reader.read_at(100, 1) == b""

    @pytest.mark.local("over a socket every part is asked for anew")
    def test_blob_stays_readable_while_it_is_deleted(self, store: ContentStore) -> None:
        """A reader that is open keeps the bytes."""
        data = noise("deleted", 5000)
        digest = ingest(store, "ref", data)

        with closing(store.reader(Descriptor("", digest, 0))) as reader:
            store.delete(digest)
            assert reader.read_at(0, 5000) == data

    def test_empty_blob_is_a_blob(self, store: ContentStore) -> None:
        """An empty blob can be written, and has a digest."""
        assert ingest(store, "empty", b"") == EMPTY
        assert store.info(EMPTY).size == 0

    def test_memoryview_is_written_like_bytes(self, store: ContentStore) -> None:
        """Writers accept memoryviews, so callers need not copy."""
        with closing(store.writer("view")) as writer:
            assert writer.write(memoryview(b"x foobar y")[2:8]) == 6
            writer.commit(6, digest_of(b"foobar"), KEPT)

    @pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
    def test_other_digest_algorithms_are_honoured(self, store: ContentStore, algorithm: str) -> None:
        """The blob gets a digest of the algorithm that is given at open or at commit."""
        for ref, data in (("open", b"told at open"), ("commit", b"told at commit")):
            digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
            with closing(store.writer(ref, expected=digest if ref == "open" else "")) as writer:
                writer.write(data)
                writer.commit(len(data), digest, KEPT)
            assert read_blob(store, digest) == data

    # The state of an ingest

    def test_status_follows_every_write(self, store: ContentStore) -> None:
        """Offset and digest track the bytes, updated_at the last write; started_at never moves."""
        data = noise("status", 1024)
        opening = time.time_ns()
        with closing(store.writer("status", len(data))) as writer:
            first = writer.status()
            assert (first.ref, first.offset, first.total) == ("status", 0, 1024)
            assert writer.digest() == EMPTY
            assert opening <= first.started_at <= time.time_ns()
            for end in (256, 512, 1024):
                before = time.time_ns()
                writer.write(data[writer.status().offset : end])
                status = writer.status()
                assert (status.offset, status.total, status.started_at) == (end, 1024, first.started_at)
                assert before <= status.updated_at <= time.time_ns()
                assert writer.digest() == digest_of(data[:end])
                assert store.status("status").offset == end
            writer.commit(len(data), digest_of(data), {**KEPT, "k": "v"})
        assert store.info(digest_of(data)).labels["k"] == "v"
        with pytest.raises(NotFound):
            store.status("status")

    def test_statuses_are_selected_by_ref(self, store: ContentStore) -> None:
        """Open and closed ingests are listed; ``ref`` is the field."""
        for ref in ("layer-1", "layer-2", "config"):
            store.writer(ref).close()

        with closing(store.writer("layer-2")):
            assert refs(store) == ["config", "layer-1", "layer-2"]
        assert refs(store, "ref==config") == ["config"]
        assert refs(store, "ref~=^layer", "ref==config") == ["config", "layer-1", "layer-2"]
        with pytest.raises(InvalidArgument):
            store.statuses(["ref=="])

    # Continuing

    def test_ingest_continues_where_it_was_closed(self, store: ContentStore) -> None:
        """The same ref has the same times, total and digest; the rest makes the blob."""
        data = noise("resume", 256)
        with closing(store.writer("resume", 256)) as writer:
            writer.write(data[:128])
            before = writer.status()

        with closing(store.writer("resume", 256)) as writer:
            assert writer.status() == before
            assert writer.digest() == digest_of(data[:128])
            writer.write(data[128:])
            writer.commit(labels=KEPT)

        assert store.info(digest_of(data)).size == 256
        assert dict(store.info(digest_of(data)).labels) == dict(KEPT)

    @pytest.mark.parametrize("percent", WRITTEN_PERCENT)
    @pytest.mark.parametrize("size", SIZES)
    def test_missing_tail_completes_the_ingest(self, store: ContentStore, size: int, percent: int) -> None:
        """An ingest is completed by the missing bytes, wherever it stopped."""
        data = noise("tail", size)
        offset = self._interrupted(store, data, percent)

        with closing(store.writer("interrupted", size)) as writer:
            assert writer.status().offset == offset
            writer.write(data[offset:])
            writer.commit(size, digest_of(data), KEPT)
        assert read_blob(store, digest_of(data)) == data

    @pytest.mark.parametrize("percent", WRITTEN_PERCENT)
    @pytest.mark.parametrize("size", SIZES)
    def test_truncate_starts_the_ingest_again(self, store: ContentStore, size: int, percent: int) -> None:
        """A truncated ingest starts again, wherever it stopped."""
        data = noise("again", size)
        offset = self._interrupted(store, data, percent)

        with closing(store.writer("interrupted", size)) as writer:
            assert writer.status().offset == offset
            writer.truncate(0)
            assert (writer.status().offset, writer.digest()) == (0, EMPTY)
            writer.write(data)
            writer.commit(size, digest_of(data), KEPT)
        assert read_blob(store, digest_of(data)) == data

    def _interrupted(self, store: ContentStore, data: bytes, percent: int) -> int:
        offset = len(data) * percent // 100
        with closing(store.writer("interrupted", len(data))) as writer:
            writer.write(data[:offset])
        return offset

    def test_another_total_starts_the_ingest_again(self, store: ContentStore) -> None:
        """Another total drops the bytes of an ingest; without a size the total is kept."""
        with closing(store.writer("total", 100)) as writer:
            writer.write(b"old")

        with closing(store.writer("total")) as writer:
            assert (writer.status().offset, writer.status().total) == (3, 100)
        with closing(store.writer("total", 200)) as writer:
            assert (writer.status().offset, writer.status().total) == (0, 200)

    def test_a_total_that_comes_later_continues_the_ingest(self, store: ContentStore) -> None:
        """Only a total that contradicts another one makes the bytes useless; another expected digest does not."""
        data = noise("late total", 256)
        with closing(store.writer("late")) as writer:
            writer.write(data[:100])

        for size, expected in ((256, ""), (0, ""), (256, digest_of(b"another")), (256, digest_of(data))):
            with closing(store.writer("late", size, expected)) as writer:
                assert (writer.status().offset, writer.digest()) == (100, digest_of(data[:100]))
        with closing(store.writer("late", 256)) as writer:
            writer.write(data[100:])
            writer.commit(256, digest_of(data))
        assert read_blob(store, digest_of(data)) == data

    def test_truncate_to_anything_but_nothing_is_not_supported(self, store: ContentStore) -> None:
        """Truncation to a size other than 0 is refused (docs/containerd 3.5)."""
        with closing(store.writer("truncate")) as writer, pytest.raises(Unimplemented):
            writer.truncate(1)

    def test_truncated_and_closed_leaves_an_empty_ingest(self, store: ContentStore) -> None:
        """An ingest that was truncated and closed stays, and can be continued."""
        with closing(store.writer("emptied", 10)) as writer:
            writer.write(b"12345")
            writer.truncate(0)

        assert (store.status("emptied").offset, store.status("emptied").total) == (0, 10)

    # Refusals

    def test_second_writer_of_a_ref_is_refused(self, store: ContentStore) -> None:
        """One ref has one writer; closing, also twice, gives it back."""
        with closing(store.writer("locked")) as writer:
            with pytest.raises(Unavailable, match="locked"):
                store.writer("locked")
            writer.write(b"x")
        writer.close()

        with closing(store.writer("locked")) as writer:
            assert writer.status().offset == 1

    @pytest.mark.parametrize("told", [True, False])
    def test_commit_of_a_blob_that_exists_is_refused_and_removes_the_ingest(
        self, store: ContentStore, told: bool
    ) -> None:
        """A commit of an existing blob is AlreadyExists; the ref can be used again at once and starts empty."""
        data = noise("twice", 256)
        digest = ingest(store, "first", data)

        with closing(store.writer("second", len(data))) as writer:
            writer.write(data)
            with pytest.raises(AlreadyExists):
                writer.commit(len(data) if told else 0, digest if told else "", {"ignored": "yes"})
            with closing(store.writer("second")) as again:
                assert again.status().offset == 0
                again.truncate(0)
        assert dict(store.info(digest).labels) == dict(KEPT)

    def test_writer_for_a_blob_that_exists_is_refused(self, store: ContentStore) -> None:
        """A writer that is opened with the digest of an existing blob is AlreadyExists, which saves the bytes."""
        digest = ingest(store, "first", b"there")

        with pytest.raises(AlreadyExists):
            store.writer("second", 5, digest)
        assert refs(store) == []

    @pytest.mark.parametrize(("size", "expected"), MISFITS)
    def test_commit_that_does_not_fit_is_refused(self, store: ContentStore, size: int, expected: str) -> None:
        """Nothing becomes visible, and the same ref can be written again."""
        data = noise("misfit", 256)
        with closing(store.writer("misfit", 256)) as writer:
            writer.write(data)
            with pytest.raises(FailedPrecondition):
                writer.commit(size, expected)
        assert digests(store) == []

        with closing(store.writer("misfit", 256)) as writer:
            writer.truncate(0)
            writer.write(data)
            writer.commit(256, digest_of(data), KEPT)
        assert digests(store) == [digest_of(data)]

    @pytest.mark.local("a daemon may drop what its client cannot have meant")
    @pytest.mark.parametrize(("size", "expected"), MISFITS)
    def test_commit_that_does_not_fit_keeps_the_ingest(self, store: ContentStore, size: int, expected: str) -> None:
        """After close the ref is opened again, has all bytes and can be committed."""
        data = noise("mismatch", 256)
        with closing(store.writer("mismatch", 256)) as writer:
            writer.write(data)
            with pytest.raises(FailedPrecondition):
                writer.commit(size, expected)
        assert store.status("mismatch").offset == 256

        with closing(store.writer("mismatch", 256)) as writer:
            assert writer.digest() == digest_of(data)
            writer.commit(256, digest_of(data), KEPT)
        assert digests(store) == [digest_of(data)]

    def test_labels_that_are_too_long_are_refused_before_commit(self, store: ContentStore) -> None:
        """Key and value together have at most 4096 bytes."""
        with closing(store.writer("labels")) as writer:
            writer.write(b"x")
            with pytest.raises(InvalidArgument):
                writer.commit(labels={"k": "v" * 4096})
        assert digests(store) == []

    def test_closed_writer_takes_nothing(self, store: ContentStore) -> None:
        """A writer accepts no bytes after commit or after close."""
        committed, closed = store.writer("committed"), store.writer("closed")
        committed.write(b"x")
        committed.commit(labels=KEPT)
        closed.close()

        for writer in (committed, closed):
            with pytest.raises(FailedPrecondition):
                writer.write(b"more")
        assert read_blob(store, digest_of(b"x")) == b"x"

    def test_abort_gives_an_ingest_up(self, store: ContentStore) -> None:
        """An aborted ingest is not found afterwards, and its ref starts empty."""
        with closing(store.writer("abort")) as writer:
            writer.write(b"gone")

        store.abort("abort")

        assert refs(store) == []
        with pytest.raises(NotFound):
            store.abort("abort")
        with closing(store.writer("abort")) as writer:
            assert writer.status().offset == 0

    def test_what_does_not_exist_is_not_found(self, store: ContentStore) -> None:
        """A call with an unknown digest or ref is NotFound."""
        for call in (store.info, store.delete):
            with pytest.raises(NotFound):
                call(UNKNOWN)
        with pytest.raises(NotFound):
            store.reader(Descriptor("", UNKNOWN, 0))
        with pytest.raises(NotFound):
            store.update(Info(UNKNOWN, labels={"k": "v"}))
        with pytest.raises(NotFound):
            store.status("unknown")

    @pytest.mark.parametrize(
        "digest", ["", "sha256", "sha256:", "sha256:../../etc/passwd", "md5:" + "0" * 32, "sha256:" + "A" * 64, "/"]
    )
    def test_what_is_no_digest_is_refused(self, store: ContentStore, digest: str) -> None:
        """Unknown algorithms, upper case and paths are refused as digests."""
        for call in (store.info, store.delete):
            with pytest.raises(InvalidArgument):
                call(digest)
        with pytest.raises(InvalidArgument):
            store.reader(Descriptor("", digest, 0))

    @pytest.mark.parametrize("ref", ["../../x", "a/b/c", "ü ñ 你好", "with\nnewline", "-" * 500, "."])
    def test_refs_are_free_strings(self, store: ContentStore, ref: str) -> None:
        """Refs are names, not paths."""
        with closing(store.writer(ref)) as writer:
            writer.write(b"x")

        assert refs(store) == [ref]
        store.abort(ref)

    def test_ref_must_not_be_empty(self, store: ContentStore) -> None:
        """An empty ref is refused."""
        with pytest.raises(InvalidArgument):
            store.writer("")

    # Blobs

    def test_labels_of_commit_are_kept(self, store: ContentStore) -> None:
        """Info and walk return the labels of the commit."""
        digest = ingest(store, "labelled", b"labelled", {**KEPT, "k": "v"})
        assert dict(store.info(digest).labels) == {**KEPT, "k": "v"}
        assert [dict(info.labels) for info in store.walk()] == [{**KEPT, "k": "v"}]

    def test_labels_are_replaced_as_a_whole_or_one_by_one(self, store: ContentStore) -> None:
        """Only updated_at moves; a label that is named and absent is removed; other fields cannot change."""
        digest = ingest(store, "labels", b"labels", {**KEPT, "k1": "v1", "k2": "v2"})
        committed = store.info(digest)

        replaced = store.update(Info(digest, labels={**KEPT, "k1": "new", "k3": "v3", "k4": ""}))
        assert dict(replaced.labels) == {**KEPT, "k1": "new", "k3": "v3"}
        assert replaced.created_at == committed.created_at
        assert replaced.updated_at > committed.updated_at

        changed = store.update(Info(digest, labels={"k1": "newer", "k2": "not named"}), ["labels.k3", "labels.k1"])
        assert dict(changed.labels) == {**KEPT, "k1": "newer"}
        assert store.info(digest) == changed
        with pytest.raises(InvalidArgument):
            store.update(Info(digest, size=1), ["size"])

    def test_walk_yields_what_the_filters_select(self, store: ContentStore) -> None:
        """By digest and by label; one string is *and*, several are *or*."""
        one = ingest(store, "1", b"one", {**KEPT, "kind": "layer", "a/b": "x"})
        two = ingest(store, "2", b"two", {**KEPT, "kind": "layer"})
        three = ingest(store, "3", b"three", KEPT)

        assert digests(store) == sorted([one, two, three])
        assert digests(store, "labels.kind==layer") == sorted([one, two])
        assert digests(store, 'labels.kind==layer,labels."a/b"!=x') == [two]
        assert digests(store, f"digest=={three}", 'labels."a/b"') == sorted([one, three])
        with pytest.raises(InvalidArgument):
            store.walk(["labels.kind=="])

    def test_deleted_blob_is_gone_and_can_come_back(self, store: ContentStore) -> None:
        """A deleted blob can be written again, and has the new labels only."""
        digest = ingest(store, "once", b"again", {**KEPT, "old": "yes"})
        store.delete(digest)
        assert digests(store) == []

        assert ingest(store, "twice", b"again", KEPT) == digest
        assert dict(store.info(digest).labels) == dict(KEPT)

    def test_only_one_of_many_commits_of_the_same_bytes_wins(self, store: ContentStore) -> None:
        """The other writers get AlreadyExists."""
        data = noise("race", 10_000)

        def commit(number: int) -> bool:
            with closing(store.writer(f"race-{number}")) as writer:
                writer.write(data)
                try:
                    writer.commit(labels=KEPT)
                except AlreadyExists:
                    return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(commit, range(8)))

        assert sum(won) == 1
        assert read_blob(store, digest_of(data)) == data
        assert refs(store) == []
