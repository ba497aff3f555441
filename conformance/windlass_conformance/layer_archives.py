"""Layers for the cases of a differ: archives made entry by entry, and trees as lists of facts."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path

from windlass.contracts.content import ContentStore
from windlass.contracts.diff import LAYER, LAYER_GZIP
from windlass.contracts.mounts import Mount
from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists

TIME = 1_600_000_000
ROOTED = {"containerd.io/gc.root": "2026-01-01T00:00:00Z"}

Facts = dict[str, tuple[object, ...]]


class Archive:
    """Builds a tar file; every method returns the builder."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name: str, kind: bytes, data: bytes = b"", mode: int = 0o644, **fields: object) -> Archive:
        """Add an entry; ``fields`` are those of `tarfile.TarInfo`."""
        entry = tarfile.TarInfo(name)
        entry.type, entry.size, entry.mode, entry.mtime = kind, len(data), mode, TIME
        for key, value in fields.items():
            setattr(entry, key, value)
        self._tar.addfile(entry, io.BytesIO(data))
        return self

    def file(self, name: str, data: bytes = b"", mode: int = 0o644, **fields: object) -> Archive:
        """Add a file."""
        return self.add(name, tarfile.REGTYPE, data, mode, **fields)

    def dir(self, name: str, mode: int = 0o755, **fields: object) -> Archive:
        """Add a directory."""
        return self.add(name, tarfile.DIRTYPE, b"", mode, **fields)

    def symlink(self, name: str, target: str) -> Archive:
        """Add a symbolic link."""
        return self.add(name, tarfile.SYMTYPE, b"", 0o777, linkname=target)

    def link(self, name: str, target: str, mode: int = 0o644, **fields: object) -> Archive:
        """Add a further name of a file."""
        return self.add(name, tarfile.LNKTYPE, b"", mode, linkname=target, **fields)

    def bytes(self) -> bytes:
        """End the archive and return it."""
        self._tar.close()
        return self._buffer.getvalue()


def digest_of(data: bytes) -> str:
    """Return the digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def put(store: ContentStore, archive: bytes, media_type: str = LAYER) -> Descriptor:
    """Store a layer, compressed if its type says so."""
    data = gzip.compress(archive, 1, mtime=0) if media_type == LAYER_GZIP else archive
    desc = Descriptor(media_type, digest_of(data), len(data))
    try:
        writer = store.writer(f"conformance-{desc.digest}", desc.size, desc.digest)
        writer.write(data)
        writer.commit(desc.size, desc.digest, ROOTED)
    except AlreadyExists:
        pass
    return desc


def get(store: ContentStore, desc: Descriptor) -> bytes:
    """Return a blob."""
    reader = store.reader(desc)
    try:
        parts: list[bytes] = []
        while part := reader.read_at(sum(map(len, parts)), 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        reader.close()


def members(data: bytes) -> list[str]:
    """Return the entries of a plain or compressed layer in its order: directories end in a slash, links say whose."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [_shown(entry) for entry in tar]


def _shown(entry: tarfile.TarInfo) -> str:
    ends = {tarfile.DIRTYPE: "/", tarfile.LNKTYPE: f" -> {entry.linkname}"}
    return entry.name.removeprefix("./").rstrip("/") + ends.get(entry.type, "")


def bind(path: Path, *options: str) -> Sequence[Mount]:
    """Return the mount that shows a directory."""
    return (Mount("bind", str(path), ("rbind", *(options or ("rw",)))),)


def facts(root: Path) -> Facts:
    """Return mode, owner, device, time, content and attributes of each path, and the first of the names it shares."""
    found: Facts = {}
    names: dict[tuple[int, int], str] = {}
    for path in sorted(root.rglob("*")):
        status, name = path.lstat(), str(path.relative_to(root))
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        if stat.S_ISLNK(status.st_mode):
            content = os.fsencode(path.readlink())
        xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in _xattrs(path)}
        first = names.setdefault((status.st_dev, status.st_ino), name)
        owner = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns)
        found[name] = (*owner, content, first, xattrs)
    return found


def _xattrs(path: Path) -> list[str]:
    return [key for key in os.listxattr(path, follow_symlinks=False) if not key.startswith("security.selinux")]
