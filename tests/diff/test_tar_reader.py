"""The tar reader alone: formats, limits, damage."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any  # the builder lives in conftest, which tests cannot import

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.errors import InvalidArgument
from windlass_diff import headers, tar

Archive = Callable[..., bytes]


def entries(data: bytes, chunk: int = 1000) -> list[headers.Entry]:
    """Return all entries of an archive that arrives in chunks of ``chunk`` bytes."""
    pieces = iter([data[i : i + chunk] for i in range(0, len(data), chunk)])
    return list(tar.Archive(lambda: next(pieces, b"")))


def read(data: bytes, chunk: int = 1000) -> Iterator[tuple[headers.Entry, bytes]]:
    """Yield all entries with their contents."""
    pieces = iter([data[i : i + chunk] for i in range(0, len(data), chunk)])
    archive = tar.Archive(lambda: next(pieces, b""))
    for entry in archive:
        fd = os.memfd_create("data")
        try:
            if entry.type == headers.FILE:
                archive.copy_to(entry, fd)
            yield entry, os.pread(fd, 1 << 20, 0)
        finally:
            os.close(fd)


def header(name: bytes = b"f", flag: bytes = b"0", size: bytes = b"0", **fields: bytes) -> bytes:
    """Return a header block with a right checksum; fields that are not given are zero."""
    block = bytearray(512)
    places = {"uid": 108, "gid": 116, "mtime": 136, "link": 157, "major": 329, "minor": 337, "prefix": 345}
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = flag
    block[257:265] = fields.pop("magic", b"ustar\x0000")
    for key, value in fields.items():
        block[places[key] : places[key] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax_header(*records: bytes, flag: bytes = b"x") -> bytes:
    """Return a pax header of ``records``, each ``key=value``."""
    body = b""
    for record in records:
        length = len(record) + 3
        while len(b"%d %s\n" % (length, record)) != length:
            length += 1
        body += b"%d %s\n" % (length, record)
    return header(b"x", flag, b"%o" % len(body)) + body.ljust(-(-len(body) // 512) * 512, b"\0")


@pytest.mark.parametrize("chunk", [1, 511, 512, 513, 7000, 1 << 20])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_contents_arrive_whole_however_the_stream_is_cut(chunk: int, form: int, members: Any) -> None:
    """Chunks may end anywhere, inside headers too."""
    long_name = "d" * 60 + "/" + "n" * 90
    data = members(form).file("a", b"1" * 700).dir("d").file(long_name, b"2" * 512).file("empty").bytes()

    found = [(entry.name, content) for entry, content in read(data, chunk)]

    assert found == [(b"a", b"1" * 700), (b"d/", b""), (long_name.encode(), b"2" * 512), (b"empty", b"")]


def test_what_is_not_copied_is_passed_over(members: Any) -> None:
    """A caller need not read an entry's data."""
    assert [e.name for e in entries(members().file("a", b"x" * 5000).file("b").bytes())] == [b"a", b"b"]


def test_long_names_of_gnu_and_pax(members: Any) -> None:
    """A name and a link of 4000 bytes arrive in both formats."""
    name, link = "n/" * 2000, "l/" * 2000
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        (entry,) = entries(members(form).symlink(name + "x", link + "x").bytes())
        assert (entry.name, entry.link) == (name.encode() + b"x", link.encode() + b"x")


def test_names_that_are_not_utf8_are_kept() -> None:
    """Names are bytes."""
    assert entries(header(b"caf\xe9"))[0].name == b"caf\xe9"
    assert entries(pax_header(b"path=caf\xe9") + header(b"f"))[0].name == b"caf\xe9"


def test_pax_records_replace_header_fields() -> None:
    """Path, link, size, owner and times; fractions of seconds are exact."""
    records = (b"path=p", b"uid=4000000000", b"gid=7", b"mtime=1.000000001", b"atime=-2.5", b"size=3")
    ((entry, content),) = read(pax_header(*records) + header() + b"abc".ljust(512, b"\0"))
    assert (entry.name, entry.uid, entry.gid, entry.size, content) == (b"p", 4000000000, 7, 3, b"abc")
    assert (entry.mtime, entry.atime) == (1_000_000_001, -2_500_000_000)


def test_xattrs_are_bytes_with_anything_in_them() -> None:
    """Values may hold newlines, zeros and equal signs."""
    (entry,) = entries(pax_header(b"SCHILY.xattr.user.a=\x00=\n1", b"SCHILY.xattr.user.empty=") + header())
    assert entry.xattrs == ((b"user.a", b"\x00=\n1"), (b"user.empty", b""))


def test_global_pax_headers_are_ignored() -> None:
    """As containerd does, whatever they hold."""
    assert entries(pax_header(b"path=everywhere", flag=b"g") + header(b"f"))[0].name == b"f"


def test_base_256_numbers() -> None:
    """GNU tar writes what does not fit octal digits in base 256, negative times included."""
    (entry,) = entries(header(uid=b"\x80" + (1 << 31).to_bytes(7, "big"), mtime=(-5).to_bytes(12, "big", signed=True)))
    assert (entry.uid, entry.mtime) == (1 << 31, -5_000_000_000)


def test_ustar_prefix() -> None:
    """A prefix comes before the name, in Go's old mixture of GNU magic and ustar prefix too."""
    assert entries(header(b"f", prefix=b"a/b"))[0].name == b"a/b/f"
    assert entries(header(b"f", prefix=b"a" * 100, magic=b"ustar  \0"))[0].name == b"a" * 100 + b"/f"


def test_gnu_times_are_no_prefix() -> None:
    """Incremental archives of GNU tar keep the access time where ustar has the prefix."""
    (entry,) = entries(header(b"f", prefix=b"00000000017\0", magic=b"ustar  \0"))
    assert (entry.name, entry.atime) == (b"f", 15_000_000_000)


def test_an_old_file_with_a_slash_is_a_directory() -> None:
    """Version 7 had no type for directories."""
    assert entries(header(b"d/", b"\0"))[0].type == headers.DIRECTORY


SPARSE = b"A" * 512 + b"\0" * 512 + b"B" * 100


def test_sparse_files_of_pax_0_0() -> None:
    """Offsets and lengths as repeated records."""
    records = (
        b"GNU.sparse.size=1124", b"GNU.sparse.numblocks=2", b"GNU.sparse.offset=0", b"GNU.sparse.numbytes=512",
        b"GNU.sparse.offset=1024", b"GNU.sparse.numbytes=100",
    )  # fmt: skip
    data = pax_header(*records) + header(b"s", size=b"%o" % 612) + b"A" * 512 + b"B" * 100 + b"\0" * 412
    assert [c for _, c in read(data)] == [SPARSE]


def test_sparse_files_of_pax_0_1() -> None:
    """The map as one record, the name as another."""
    records = (b"GNU.sparse.size=1124", b"GNU.sparse.map=0,512,1024,100", b"GNU.sparse.name=s", b"path=made/up")
    data = pax_header(*records) + header(b"x", size=b"%o" % 612) + b"A" * 512 + b"B" * 100 + b"\0" * 412
    assert [(e.name, c) for e, c in read(data)] == [(b"s", SPARSE)]


def test_sparse_files_of_pax_1_0() -> None:
    """The map before the data."""
    records = (b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.name=s", b"GNU.sparse.realsize=1124")
    sparse_map = b"2\n0\n512\n1024\n100\n".ljust(512, b"\0")
    data = pax_header(*records) + header(b"x", size=b"%o" % 1124) + sparse_map + b"A" * 512 + b"B" * 100 + b"\0" * 412
    assert [(e.name, c) for e, c in read(data + header(b"after"))] == [(b"s", SPARSE), (b"after", b"")]


def old_sparse(extents: list[tuple[int, int]], real: int, stored: int) -> bytes:
    """Return a header of type S, with one extension block when there are more than four extents."""
    numbers = [b"%011o\0%011o\0" % extent for extent in extents]
    block = bytearray(header(b"s", b"S", b"%o" % stored, magic=b"ustar  \0"))
    block[386 : 386 + 96] = b"".join(numbers[:4]).ljust(96, b"\0")
    block[482] = len(numbers) > 4
    block[483:495] = b"%011o\0" % real
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + (b"".join(numbers[4:]).ljust(512, b"\0") if len(numbers) > 4 else b"")


def test_sparse_files_of_old_gnu() -> None:
    """In the header, and with an extension block."""
    data = old_sparse([(0, 512), (1024, 100)], 1124, 612) + b"A" * 512 + b"B" * 100 + b"\0" * 412
    assert [c for _, c in read(data)] == [SPARSE]
    six = [(i * 1024, 1) for i in range(6)]
    ((entry, content),) = read(old_sparse(six, 6000, 6) + b"abcdef".ljust(512, b"\0"))
    assert (entry.size, bytes(content[::1024])) == (6000, b"abcdef")


REFUSED = {
    "truncated": header(b"f", size=b"1000") + b"x" * 100,
    "truncated: ": header(b"f")[:300],
    "wrong checksum": header(b"f")[:100] + b"9" + header(b"f")[101:],
    "goes on after": bytes(512) + header(b"f"),
    "unknown type 'V'": header(b"f", b"V"),
    "size that is not a number": header(b"f", size=b"-7"),
    "size of -1": header(b"f", size=b"\xff" * 12),
    "uid that is not a number": header(b"f", uid=b"12x"),
    "out of range": header(b"f", b"3", major=b"\x80" + (1 << 33).to_bytes(7, "big")),
    "device number 0:-1": header(b"f", b"4", minor=b"\xff" * 8),
    "owner 4294967295": pax_header(b"uid=4294967295") + header(),
    "name or link of 5000": pax_header(b"path=" + b"n" * 5000) + header(),
    "zero byte": pax_header(b"path=a\0b") + header(),
    "uid is not a number": pax_header(b"uid=1e3") + header(),
    "is not a time": pax_header(b"mtime=now") + header(),
    "without a length": header(b"x", b"x", b"4") + b"junk".ljust(512, b"\0"),
    "does not fit its text": header(b"x", b"x", b"5") + b"9 a=b".ljust(512, b"\0"),
    "long name of 4294967296 bytes": header(b"n", b"L", b"40000000000"),
    "pax header of 4294967296 bytes": header(b"n", b"x", b"40000000000"),
    "overlaps or leaves": old_sparse([(0, 512), (100, 512)], 2000, 1024) + bytes(1024),
    "account for the bytes": old_sparse([(0, 100)], 2000, 612) + bytes(1024),
    "without a length.": pax_header(b"GNU.sparse.size=9", b"GNU.sparse.map=1,2,3") + header(),
    "more than 262144 extents": pax_header(b"GNU.sparse.major=1", b"GNU.sparse.realsize=9")
    + header(size=b"1000")
    + b"9999999\n".ljust(512, b"\0"),
    "longer than the file's data": pax_header(b"GNU.sparse.major=1", b"GNU.sparse.realsize=9")
    + header(size=b"1000")
    + b"9\n".ljust(512, b"1"),
}


@pytest.mark.parametrize(("message", "data"), REFUSED.items(), ids=REFUSED)
def test_damage_and_excess_are_refused_cheaply(message: str, data: bytes) -> None:
    """Each with its reason, and without taking memory for what is only announced."""
    tracemalloc.start()
    try:
        with pytest.raises(InvalidArgument, match=message.rstrip(".").rstrip(": ")):
            entries(data)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_an_archive_may_end_without_its_end_mark(members: Any) -> None:
    """As containerd and GNU tar have it; an empty stream is an archive without entries."""
    assert len(entries(header(b"f"))) == 1
    assert len(entries(header(b"f") + bytes(512))) == 1
    assert entries(b"") == []


def test_names_in_messages_are_short_and_printable() -> None:
    """A terminal must not obey a layer."""
    assert headers.shown(b"\x1b[2J\xff" + b"n" * 300) == "\\x1b[2J\\\\udcff" + "n" * 195 + "…"


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 2000), st.binary(max_size=600))
def test_noise_is_refused_or_read_but_never_crashes(noise: bytes, place: int, patch: bytes) -> None:
    """The only error is InvalidArgument, whatever the bytes."""
    good = pax_header(b"GNU.sparse.size=9", b"GNU.sparse.map=1,2") + header(size=b"2") + b"ab".ljust(512, b"\0")
    for data in (noise, good[:place] + patch + good[place + len(patch) :]):
        try:
            list(read(data, 700))
        except (InvalidArgument, OSError):
            continue


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=300),
            st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]),
            st.binary(max_size=1500),
            st.integers(0, 0o7777),
            st.integers(0, 2**32 - 2),
            st.integers(0, 2**33).map(lambda quarters: quarters / 4),
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=200),
        ),
        max_size=6,
    ),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.integers(1, 3000),
)
def test_the_standard_library_reads_the_same(rows: list[tuple[Any, ...]], form: int, chunk: int) -> None:
    """Every field and all data of archives that `tarfile` writes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, kind, data, mode, uid, mtime, link in rows:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.mtime = kind, mode, uid, mtime
            member.linkname = link if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            member.size = len(data) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(data))

    ours = list(read(buffer.getvalue(), chunk))

    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive:
        theirs = archive.getmembers()
        assert len(ours) == len(theirs)
        for (entry, content), member in zip(ours, theirs, strict=True):
            assert os.fsdecode(entry.name).rstrip("/") == member.name.rstrip("/")
            assert (os.fsdecode(entry.link), entry.mode, entry.uid) == (member.linkname, member.mode, member.uid)
            assert abs(entry.mtime / 1e9 - member.mtime) < 1e-5
            assert entry.type == (headers.DIRECTORY if member.isdir() else member.type)
            if member.isreg():
                extracted = archive.extractfile(member)
                assert extracted is not None
                assert content == extracted.read()
