"""A zygote that forks this process, a content store in memory, and ways to make archives and trees."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path

import pytest

from windlass.contracts.content import Info, Status
from windlass.contracts.diff import LAYER as LAYER
from windlass.contracts.diff import LAYER_GZIP
from windlass.contracts.diff import CompareOptions as CompareOptions
from windlass.contracts.mounts import Mount
from windlass.contracts.values import Descriptor
from windlass.contracts.zygote import Child
from windlass.errors import AlreadyExists, NotFound
from windlass_diff.differ import WalkingDiffer
from windlass_linux import calls as linux


class ForkZygote:
    """Forks the test process, which has no threads; close it to reap what it forked."""

    def __init__(self) -> None:
        self.children: list[int] = []

    def preload(self, modules: Sequence[str]) -> None:
        for module in modules:
            import_module(module)

    def spawn(self, entry: str, arguments: Sequence[str], descriptors: Sequence[int], timeout: float = 10.0) -> Child:
        module, _, name = entry.partition(":")
        function = getattr(import_module(module), name)
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                first = 3
                for fd in sorted(descriptors):
                    if fd > first:
                        linux.close_range(first, fd - 1)
                    first = fd + 1
                linux.close_range(first)
                status = function(arguments, descriptors)
            finally:
                os._exit(status)
        self.children.append(pid)
        return Child(pid, os.pidfd_open(pid))

    def close(self) -> None:
        for pid in self.children:
            os.waitpid(pid, 0)


class MemoryReader:
    """Reads a blob through an anonymous file."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._fd = os.memfd_create("blob")
        os.write(self._fd, data)

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class MemoryWriter:
    """Collects an ingest's bytes."""

    def __init__(self, store: MemoryContent, ref: str) -> None:
        self._store, self._ref = store, ref

    @property
    def _data(self) -> bytearray:
        return self._store.ingests[self._ref]

    def write(self, data: bytes | memoryview) -> int:
        self._data.extend(data)
        return len(data)

    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self._data).hexdigest()

    def status(self) -> Status:
        return Status(self._ref, len(self._data))

    def truncate(self, size: int) -> None:
        self._data.clear()

    def commit(self, size: int = 0, expected: str = "", labels: Mapping[str, str] | None = None) -> None:
        data, digest = bytes(self._data), self.digest()
        del self._store.ingests[self._ref]
        if digest in self._store.blobs:
            raise AlreadyExists(f"content {digest} exists")
        self._store.blobs[digest] = data
        self._store.labels[digest] = dict(labels or {})

    def close(self) -> None:
        return


class MemoryContent:
    """As much of a content store as a differ uses."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.labels: dict[str, dict[str, str]] = {}
        self.ingests: dict[str, bytearray] = {}

    def add(self, data: bytes, media_type: str) -> Descriptor:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return Descriptor(media_type, digest, len(data))

    def info(self, digest: str) -> Info:
        return Info(digest, len(self.blobs[digest]), labels=self.labels[digest])

    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        for path in fieldpaths:
            key = path.removeprefix("labels.")
            self.labels.setdefault(info.digest, {})[key] = info.labels[key]
        return self.info(info.digest)

    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        return map(self.info, self.blobs)

    def delete(self, digest: str) -> None:
        del self.blobs[digest]

    def reader(self, desc: Descriptor) -> MemoryReader:
        if desc.digest not in self.blobs:
            raise NotFound(f"content {desc.digest} does not exist")
        return MemoryReader(self.blobs[desc.digest])

    def writer(self, ref: str, size: int = 0, expected: str = "", media_type: str = "") -> MemoryWriter:
        self.ingests.setdefault(ref, bytearray())
        return MemoryWriter(self, ref)

    def status(self, ref: str) -> Status:
        return Status(ref, len(self.ingests[ref]))

    def statuses(self, filters: Sequence[str] = ()) -> list[Status]:
        return [self.status(ref) for ref in self.ingests]

    def abort(self, ref: str) -> None:
        if self.ingests.pop(ref, None) is None:
            raise NotFound(f"ingest {ref} does not exist")


class Members:
    """Builds an archive member by member; every method returns the builder."""

    def __init__(self, archive_format: int = tarfile.PAX_FORMAT) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=archive_format)

    def add(self, name: str, kind: bytes, data: bytes = b"", mode: int = 0o644, **fields: object) -> Members:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.mode, member.mtime = kind, len(data), mode, 1_600_000_000
        for key, value in fields.items():
            setattr(member, key, value)
        self._tar.addfile(member, io.BytesIO(data))
        return self

    def file(self, name: str, data: bytes = b"", mode: int = 0o644, **fields: object) -> Members:
        return self.add(name, tarfile.REGTYPE, data, mode, **fields)

    def dir(self, name: str, mode: int = 0o755, **fields: object) -> Members:
        return self.add(name, tarfile.DIRTYPE, b"", mode, **fields)

    def symlink(self, name: str, target: str) -> Members:
        return self.add(name, tarfile.SYMTYPE, b"", 0o777, linkname=target)

    def link(self, name: str, target: str, mode: int = 0o644) -> Members:
        return self.add(name, tarfile.LNKTYPE, b"", mode, linkname=target)

    def bytes(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


Facts = dict[str, tuple[object, ...]]


def tree_facts(root: Path, times: bool = True) -> Facts:
    """Return all that a layer says about every path below ``root``, and which names share an inode."""
    facts: Facts = {}
    names: dict[tuple[int, int], str] = {}
    for path in sorted(root.rglob("*")):
        status, name = path.lstat(), str(path.relative_to(root))
        kind = stat.S_IFMT(status.st_mode)
        content: object = b""
        if stat.S_ISREG(kind):
            content = path.read_bytes()
        elif stat.S_ISLNK(kind):
            content = os.readlink(path)
        xattrs = {k: os.getxattr(path, k, follow_symlinks=False) for k in os.listxattr(path, follow_symlinks=False)}
        first = names.setdefault((status.st_dev, status.st_ino), name)
        mtime = status.st_mtime_ns if times else 0
        facts[name] = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, mtime, content, first, xattrs)
    return facts


@pytest.fixture
def zygote() -> Iterator[ForkZygote]:
    if os.geteuid() != 0:
        pytest.skip("layers are applied in a mount namespace and a chroot: needs root")
    zygote = ForkZygote()
    zygote.preload(["windlass_diff.worker"])
    try:
        yield zygote
    finally:
        zygote.close()


@pytest.fixture
def content() -> MemoryContent:
    return MemoryContent()


@pytest.fixture
def differ(zygote: ForkZygote, tmp_path: Path) -> Iterator[WalkingDiffer]:
    differ = WalkingDiffer(zygote, tmp_path / "target", 30.0)
    try:
        yield differ
    finally:
        differ.close()
        assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def members() -> type[Members]:
    return Members


@pytest.fixture
def facts() -> Callable[..., Facts]:
    return tree_facts


Apply = Callable[..., Descriptor]


@pytest.fixture
def apply(differ: WalkingDiffer, content: MemoryContent) -> Apply:
    def apply(archive: bytes, root: Path, media_type: str = LAYER_GZIP) -> Descriptor:
        data = gzip.compress(archive, 1) if media_type == LAYER_GZIP else archive
        desc = content.add(data, media_type)
        return differ.apply(content, desc, [Mount("bind", str(root), ("rbind", "rw"))])

    return apply


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root
