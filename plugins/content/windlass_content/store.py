"""Blobs and ingests in one directory, as containerd lays them out."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from windlass import faults
from windlass.contracts.content import ContentStore, Info, Reader, Status, Writer
from windlass.contracts.values import DIGEST, Descriptor, check_digest
from windlass.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from windlass.filters.expressions import ABSENT, Adaptor, label_of, parse, value_of
from windlass.filters.fieldpaths import kept_labels, updated_labels
from windlass.typing import override
from windlass_content import ingest
from windlass_content.disk import sync_directory
from windlass_content.labels import LabelFiles
from windlass_content.reader import BlobReader
from windlass_content.writer import IngestWriter
from windlass_storage.disks import disk_errors, private_directory

ALGORITHMS = ("sha256", "sha384", "sha512")
MAX_REF = 128 << 10
"""Bytes of a ref. The metadata store puts a namespace and a number before those of clients, which have up to 64 KiB."""


class LocalStore(ContentStore):
    """Keeps content in the directory ``root``, of which it must be the only writer."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._ingests = root / "ingest"
        self._labels = LabelFiles(root / "labels")
        self._locked: dict[str, float] = {}
        self._locking = threading.Lock()
        # Held while names in blobs and labels change, so that the two belong together; never while data moves.
        self._naming = threading.Lock()
        with disk_errors("open the content store", root):
            private_directory(root)
            self._sweep()

    @override
    def info(self, digest: str) -> Info:
        return self._info(digest, self._stat(digest), labelled=True)

    @override
    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        with self._naming, disk_errors(f"update content {info.digest}", self._labels.root):
            current = self.info(info.digest)
            labels = updated_labels(current.labels, info.labels, fieldpaths, f"content {info.digest}")
            self._labels.write(info.digest, labels)
            return self.info(info.digest)

    @override
    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        """Yield every blob that matches; one that is deleted meanwhile may be missing."""
        accepts = parse(filters)
        return (info for info in self._every_blob() if accepts(_blob_adaptor(info)))

    @override
    def delete(self, digest: str) -> None:
        check_digest(digest)
        with self._naming:
            # A collection deletes thousands: paths are texts here, which are faster to make than a Path.
            try:
                with disk_errors(f"delete content {digest}", self._blobs):
                    faults.point("content.delete")
                    os.unlink(f"{self._blobs}/{digest.replace(':', '/')}")  # noqa: PTH108 - faster
            except FileNotFoundError:
                raise NotFound(f"content {digest} does not exist") from None
            self._labels.forget(digest)

    @override
    def reader(self, desc: Descriptor) -> Reader:
        return BlobReader(self._blob(desc.digest), desc.digest)

    @override
    def writer(self, ref: str, size: int = 0, expected: str = "", media_type: str = "") -> Writer:
        _check_ref(ref)
        if size < 0:
            raise InvalidArgument(f"ingest {ref}: size {size} is negative")
        if expected and self._exists(expected):
            raise AlreadyExists(f"content {expected} exists already")
        self._lock(ref)
        try:
            with disk_errors(f"open ingest {ref}", self._ingests):
                return self._open(ref, size, expected)
        except BaseException:
            self._unlock(ref)
            raise

    @override
    def status(self, ref: str) -> Status:
        _check_ref(ref)
        if (status := ingest.read_status(ingest.ingest_path(self._ingests, ref))) is None:
            raise NotFound(f"ingest {ref} does not exist")
        return status

    @override
    def statuses(self, filters: Sequence[str] = ()) -> list[Status]:
        accepts = parse(filters)
        if not self._ingests.is_dir():
            return []
        found = (ingest.read_status(path) for path in self._ingests.iterdir())
        return [status for status in found if status and accepts(_ingest_adaptor(status))]

    @override
    def abort(self, ref: str) -> None:
        self.status(ref)
        self._lock(ref)
        try:
            with disk_errors(f"abort ingest {ref}", self._ingests):
                ingest.remove(ingest.ingest_path(self._ingests, ref))
        finally:
            self._unlock(ref)

    def publish(self, data: Path, digest: str, labels: Mapping[str, str]) -> bool:
        """Make the file ``data``, synced already, the blob ``digest``, unless that exists."""
        target = self._blob(digest)
        with self._naming:
            if target.exists():
                return False
            target.parent.mkdir(parents=True, exist_ok=True)
            if kept := kept_labels(labels):
                self._labels.write(digest, kept)
            else:
                # Left by a delete that a crash cut short.
                self._labels.forget(digest)
            faults.point("content.rename")
            data.rename(target)
        faults.point("content.renamed")
        return True

    def settle(self, digest: str) -> None:
        """Make the blob's name durable."""
        sync_directory(self._blob(digest).parent)
        faults.point("content.committed")

    def _open(self, ref: str, size: int, expected: str) -> IngestWriter:
        path = ingest.ingest_path(self._ingests, ref)
        found = ingest.read_status(path)
        if found is None or found.ref != ref or 0 < size != found.total > 0:
            now = time.time_ns()
            ingest.create(path, ref, size, now)
            found = Status(ref, 0, size, "", now, now)
        status = Status(ref, 0, found.total, expected, found.started_at, found.updated_at)
        algorithm = expected.partition(":")[0] or ALGORITHMS[0]
        return IngestWriter(path, status, self, lambda: self._unlock(ref), algorithm)

    def _lock(self, ref: str) -> None:
        with self._locking:
            now = time.monotonic()
            if ref in self._locked:
                held = now - self._locked[ref]
                raise Unavailable(f"ref {ref} locked for {held:.3f}s; try again when its writer is closed")
            self._locked[ref] = now

    def _unlock(self, ref: str) -> None:
        with self._locking:
            del self._locked[ref]

    def _sweep(self) -> None:
        """Remove what a crash has left of ingests that were being made, removed or committed."""
        if not self._ingests.is_dir():
            return
        for path in self._ingests.iterdir():
            if not (path.joinpath(ingest.REF).exists() and path.joinpath(ingest.DATA).exists()):
                ingest.remove(path)

    def _blob(self, digest: str) -> Path:
        check_digest(digest)
        return self._blobs.joinpath(*digest.split(":"))

    def _exists(self, digest: str) -> bool:
        return self._blob(digest).exists()

    def _stat(self, digest: str) -> os.stat_result:
        try:
            status = self._blob(digest).lstat()
        except FileNotFoundError:
            raise NotFound(f"content {digest} does not exist") from None
        if not stat.S_ISREG(status.st_mode):
            raise NotFound(f"content {digest} is not a file")
        return status

    def _info(self, digest: str, status: os.stat_result, *, labelled: bool) -> Info:
        labels, changed = self._labels.read(digest) if labelled else ({}, 0)
        return Info(digest, status.st_size, status.st_mtime_ns, max(status.st_mtime_ns, changed), labels)

    def _every_blob(self) -> Iterator[Info]:
        for algorithm in ALGORITHMS:
            directory = self._blobs / algorithm
            if not directory.is_dir():
                continue
            labelled = self._labels.known(algorithm)
            with os.scandir(directory) as entries:
                for entry in entries:
                    digest = f"{algorithm}:{entry.name}"
                    if not DIGEST.fullmatch(digest) or not entry.is_file(follow_symlinks=False):
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    yield self._info(digest, status, labelled=entry.name in labelled)


def _check_ref(ref: str) -> None:
    """Refs are free strings, but they are stored, and shown in messages."""
    if not ref:
        raise InvalidArgument("ref must not be empty")
    if len(ref.encode(errors="replace")) > MAX_REF:
        raise InvalidArgument(f"ref {ref[:64]!r}… is longer than {MAX_REF} bytes")


def _blob_adaptor(info: Info) -> Adaptor:
    def answer(fieldpath: Sequence[str]) -> tuple[str, bool]:
        match fieldpath[0]:
            case "digest":
                return value_of(info.digest)
            case "labels":
                return label_of(info.labels, fieldpath)
            case _:
                return ABSENT

    return answer


def _ingest_adaptor(status: Status) -> Adaptor:
    return lambda fieldpath: value_of(status.ref) if fieldpath[0] == "ref" else ABSENT
