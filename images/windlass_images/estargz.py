"""eStargz: a layer whose gzip members begin where its files do, with a table of contents that says where.

Every gzip and tar reads it as the original layer with two more files: the table,
and the mark that nothing is to be fetched early (stargz-snapshotter, docs/estargz.md).
"""

from __future__ import annotations

import base64
import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO

from windlass.errors import InvalidArgument, OutOfRange
from windlass_images.archive import Header
from windlass_images.compression import Compressor, gzipped

TOC_NAME = "stargz.index.json"
NO_PREFETCH = ".no.prefetch.landmark"
OWN = frozenset({TOC_NAME, NO_PREFETCH, ".prefetch.landmark"})
MARK = b"\x0f"
TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
PLAIN_SIZE = "io.containers.estargz.uncompressed-size"
ANNOTATIONS = frozenset({TOC_DIGEST, PLAIN_SIZE})
CHUNK = 4 << 20
"""Bytes that a reader has to fetch at least; of a longer file each so many are a member."""
ENTRIES_LIMIT = 1_000_000
XATTR = "SCHILY.xattr."
BLOCK = tarfile.BLOCKSIZE

TYPES = {
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}

Record = dict[str, object]
"""An entry of the table."""


@dataclass(frozen=True)
class Built:
    """The result for a layer."""

    diff_id: str
    annotations: dict[str, str]


class _Members:
    """A file of gzip members; what was packed into them is hashed."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._member: Compressor | None = None
        self._plain = hashlib.sha256()
        self.plain_size = 0

    def write(self, data: bytes) -> None:
        self._member = self._member or gzipped()
        self._out.write(self._member.compress(data))
        self._plain.update(data)
        self.plain_size += len(data)

    def end(self) -> int:
        """End the member, and return where the next will begin."""
        if self._member:
            self._out.write(self._member.flush())
            self._member = None
        return self._out.tell()

    def diff_id(self) -> str:
        return f"sha256:{self._plain.hexdigest()}"


def build(plain: IO[bytes], out: IO[bytes]) -> Built:
    """Write the tar ``plain``, which can be read anywhere, as eStargz. Raises InvalidArgument for a damaged tar."""
    members = _Members(out)
    records = [*_landmark(members)]
    try:
        for record in _entries(plain, members):
            records.append(record)
            if len(records) > ENTRIES_LIMIT:
                raise OutOfRange(f"it has more than {ENTRIES_LIMIT} entries")
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise InvalidArgument(f"it is damaged or no tar file: {str(error)[:200]}") from None
    toc = json.dumps({"version": 1, "entries": records}, separators=(",", ":")).encode()
    offset = members.end()
    members.write(_header(TOC_NAME, len(toc)) + toc + bytes(-len(toc) % BLOCK + 2 * BLOCK))
    members.end()
    out.write(footer(offset))
    digest = f"sha256:{hashlib.sha256(toc).hexdigest()}"
    return Built(members.diff_id(), {TOC_DIGEST: digest, PLAIN_SIZE: str(members.plain_size)})


def footer(offset: int) -> bytes:
    """Return the last 51 bytes: an empty gzip member that says where the table begins."""
    extra = b"SG" + (22).to_bytes(2, "little") + b"%016x" % offset + b"STARGZ"
    head = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + len(extra).to_bytes(2, "little")
    return head + extra + b"\x01\x00\x00\xff\xff" + bytes(8)


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o444
    return entry.tobuf(tarfile.USTAR_FORMAT)


def _landmark(members: _Members) -> Iterator[Record]:
    members.write(_header(NO_PREFETCH, len(MARK)))
    offset = members.end()
    members.write(MARK + bytes(-len(MARK) % BLOCK))
    digest = f"sha256:{hashlib.sha256(MARK).hexdigest()}"
    yield {
        "name": NO_PREFETCH,
        "type": "reg",
        "size": len(MARK),
        "mode": 0o444,
        "offset": offset,
        "digest": digest,
        "chunkDigest": digest,
    }


def _entries(plain: IO[bytes], members: _Members) -> Iterator[Record]:
    """Pack entry after entry, headers as they are, and yield what the table says of them."""
    end = 0
    with tarfile.open(fileobj=plain, mode="r:", tarinfo=Header) as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined] # tarfile would keep them all; typeshed keeps it to itself
            start, size = end, member.size if member.isreg() else 0
            end = member.offset_data + size + -size % BLOCK
            if member.issparse():
                raise InvalidArgument(f"entry {member.name[:200]!r} is sparse, which has no form in eStargz")
            if member.name in OWN:
                continue
            members.write(_read(plain, start, member.offset_data - start))
            if member.isreg():
                yield from _file(plain, member, members)
            elif member.type in TYPES:
                yield _record(member, TYPES[member.type])
    # tarfile takes a damaged header for the end
    plain.seek(end)
    if plain.read(2 * BLOCK).strip(b"\0"):
        raise EOFError("it does not end where its entries do")


def _file(plain: IO[bytes], member: tarfile.TarInfo, members: _Members) -> Iterator[Record]:
    first = record = _record(member, "reg")
    whole = hashlib.sha256()
    records = [first]
    for done in range(0, member.size, CHUNK):
        size = min(CHUNK, member.size - done)
        if done:
            record = {"name": first["name"], "type": "chunk", "chunkOffset": done}
            records.append(record)
        if size < member.size and size == CHUNK:
            record["chunkSize"] = size
        record["offset"] = members.end()
        data = _read(plain, member.offset_data + done, size)
        whole.update(data)
        record["chunkDigest"] = f"sha256:{hashlib.sha256(data).hexdigest()}"
        members.write(data)
    members.write(bytes(-member.size % BLOCK))
    if member.size:
        first["size"], first["digest"] = member.size, f"sha256:{whole.hexdigest()}"
    yield from records


def _record(member: tarfile.TarInfo, kind: str) -> Record:
    xattrs = {
        key.removeprefix(XATTR): base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()
        for key, value in member.pax_headers.items()
        if key.startswith(XATTR)
    }
    link = member.linkname if kind in ("symlink", "hardlink") else ""
    try:
        (member.name + link + member.uname + member.gname).encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"entry {member.name[:200]!r} is not UTF-8, which eStargz has to be") from None
    record: Record = {
        "name": f"{member.name}/" if kind == "dir" else member.name,
        "type": kind,
        "modtime": _moment(member.mtime),
        "linkName": link,
        "mode": member.mode,
        "uid": member.uid,
        "gid": member.gid,
        "userName": member.uname,
        "groupName": member.gname,
        "devMajor": member.devmajor if kind in ("char", "block") else 0,
        "devMinor": member.devminor if kind in ("char", "block") else 0,
        "xattrs": xattrs,
    }
    return {key: value for key, value in record.items() if value or key in ("name", "type")}


def _moment(seconds: float) -> str:
    """Return a time as the table has it, none for the epoch and for what no calendar has."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if int(seconds) else ""
    except (OverflowError, ValueError, OSError):
        return ""


def _read(plain: IO[bytes], offset: int, size: int) -> bytes:
    plain.seek(offset)
    data = plain.read(size)
    if len(data) != size:
        raise EOFError("it ends in the middle of an entry")
    return data
