"""Applying layers to a bind mount: what is kept of every entry, whiteouts, and failures."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any  # fixtures whose classes live in conftest, which tests cannot import

import pytest
import zstandard

from windlass.contracts.diff import LAYER, LAYER_GZIP, LAYER_ZSTD
from windlass.contracts.mounts import Mount
from windlass.contracts.values import Descriptor
from windlass.errors import InvalidArgument, NotFound, OutOfRange, ResourceExhausted, Unimplemented


def bind(root: Path) -> list[Mount]:
    return [Mount("bind", str(root), ("rbind", "rw"))]


def test_every_attribute_arrives(apply: Any, members: Any, root: Path) -> None:
    """Owner, mode with setuid, times, xattrs, devices, FIFOs, hard links."""
    pax = {"SCHILY.xattr.user.colour": "red"}
    m = members().dir("d", 0o1777, uid=5, gid=6).file("d/f", b"data", 0o4755, uid=1, gid=2, pax_headers=pax)
    m.link("d/h", "d/f", 0o4755).symlink("d/l", "../x").add("d/fifo", b"6").add("d/null", b"3", devmajor=1, devminor=3)
    m.file("d/time", mtime=1.25)

    apply(m.bytes(), root)

    f, d = (root / "d/f").lstat(), (root / "d").lstat()
    assert (stat.S_IMODE(d.st_mode), d.st_uid, d.st_gid, d.st_mtime) == (0o1777, 5, 6, 1_600_000_000)
    assert (f.st_uid, f.st_gid, f.st_nlink, f.st_mtime) == (0, 0, 2, 1_600_000_000)
    assert os.getxattr(root / "d/f", "user.colour") == b"red"
    assert (root / "d/h").samefile(root / "d/f")
    assert os.readlink(root / "d/l") == "../x"
    assert stat.S_ISFIFO((root / "d/fifo").lstat().st_mode)
    assert (root / "d/null").lstat().st_rdev == os.makedev(1, 3)
    assert (root / "d/time").lstat().st_mtime_ns == 1_250_000_000


def test_what_a_parent_passes_on_does_not_change_a_file(apply: Any, members: Any, root: Path) -> None:
    """A set-group-ID bit and a default ACL of a directory have their say, the layer has the last word."""
    entries = ((0x01, 7, 2**32 - 1), (0x02, 7, 1234), (0x04, 5, 2**32 - 1), (0x10, 7, 2**32 - 1), (0x20, 0, 2**32 - 1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    for name, mode in (("group", 0o2755), ("acl", 0o755)):
        (root / name).mkdir()
        os.chown(root / name, 0, 77)
        (root / name).chmod(mode)
    os.setxattr(root / "acl", "system.posix_acl_default", acl)

    apply(members().file("group/f", b"x", 0o644).file("acl/f", b"x", 0o666, gid=9).file("acl/g", b"x").bytes(), root)

    status = {str(path.relative_to(root)): path.stat() for path in root.glob("*/?")}
    assert (status["group/f"].st_gid, stat.S_IMODE(status["group/f"].st_mode)) == (0, 0o644)
    assert (status["acl/f"].st_gid, stat.S_IMODE(status["acl/f"].st_mode)) == (9, 0o666)
    assert (status["acl/g"].st_gid, stat.S_IMODE(status["acl/g"].st_mode)) == (0, 0o644)


def test_setuid_and_capabilities_survive_the_change_of_owner(
    zygote: Any, content: Any, members: Any, tmp_path: Path, root: Path
) -> None:
    """chown(2) clears both, so it comes first; a second name of the file does not clear them either."""
    from windlass_diff.differ import WalkingDiffer

    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    pax = {"SCHILY.xattr.security.capability": capability.decode()}
    m = members().file("f", b"x", 0o6755, uid=10, gid=20, pax_headers=pax)
    m.add("h", b"1", mode=0o6755, uid=10, gid=20, linkname="f")

    differ = WalkingDiffer(zygote, tmp_path / "target", 30.0)
    differ.apply(content, content.add(m.bytes(), LAYER), bind(root))

    status = (root / "f").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_nlink) == (0o6755, 10, 20, 2)
    assert os.getxattr(root / "h", "security.capability") == capability


def test_trusted_attributes_are_never_set(apply: Any, members: Any, root: Path) -> None:
    """They are how overlayfs keeps its books."""
    pax = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.ok": "1"}
    apply(members().dir("d", pax_headers=pax).bytes(), root)
    assert os.listxattr(root / "d") == ["user.ok"]


def test_user_attributes_on_links_are_passed_over(apply: Any, members: Any, root: Path) -> None:
    """Linux refuses them there, and nobody misses them."""
    apply(members().add("l", b"2", linkname="x", pax_headers={"SCHILY.xattr.user.a": "1"}).bytes(), root)
    assert os.readlink(root / "l") == "x"


def test_parents_are_made(apply: Any, members: Any, root: Path) -> None:
    """With mode 0755, whatever the umask."""
    apply(members().file("a/b/c", b"x").bytes(), root)
    assert stat.S_IMODE((root / "a/b").stat().st_mode) == 0o755


def test_a_file_as_parent_is_refused(apply: Any, members: Any, root: Path) -> None:
    """The message names the entry."""
    with pytest.raises(InvalidArgument, match="entry a/b cannot be created: Not a directory"):
        apply(members().file("a").file("a/b").bytes(), root)


def test_whiteouts_and_opaque_directories(apply: Any, members: Any, root: Path) -> None:
    """What earlier layers brought goes, what this layer brings stays, in whatever order they come."""
    apply(members().file("gone").dir("d").file("d/old").dir("d/sub").file("d/sub/old").file("kept").bytes(), root)

    apply(members().file(".wh.gone").file("d/sub/new").file("d/.wh..wh..opq").file("d/late").bytes(), root)

    assert sorted(str(p.relative_to(root)) for p in root.rglob("*")) == ["d", "d/late", "d/sub", "d/sub/new", "kept"]


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_a_whiteout_is_one_whatever_its_entry_is(apply: Any, members: Any, root: Path, kind: bytes) -> None:
    """Buildkit and others write empty files, but the name alone says it (OCI image-spec, layer.md)."""
    apply(members().file("gone").dir("d").file("d/old").dir("e").file("e/old").bytes(), root)

    apply(members().add(".wh.gone", kind).add("d/.wh.old", kind).add("e/.wh..wh..opq", kind).bytes(), root)

    assert sorted(str(p.relative_to(root)) for p in root.rglob("*")) == ["d", "e"]


def test_kinds_replace_each_other(apply: Any, members: Any, root: Path) -> None:
    """A directory with children gives way to a file, and a file to a directory; directories merge."""
    apply(members().dir("a").file("a/x").file("b").dir("c").file("c/kept").bytes(), root)
    apply(members().file("a", b"file").dir("b").file("b/y").dir("c", 0o700).bytes(), root)
    assert (root / "a").read_text() == "file"
    assert (root / "b/y").exists()
    assert (root / "c/kept").exists()
    assert stat.S_IMODE((root / "c").stat().st_mode) == 0o700


@pytest.mark.parametrize("media_type", [LAYER, LAYER_GZIP, LAYER_ZSTD, "application/vnd.docker.image.rootfs.diff.tar"])
def test_the_diff_id_covers_everything_after_the_end(
    media_type: str, differ: Any, content: Any, members: Any, root: Path
) -> None:
    """Trailing bytes count, in every compression; gzip may come in members, zstd with skippable frames."""
    plain = members().file("f", b"x" * 100_000).bytes() + b"trailing" * 1000
    packed = {
        LAYER_GZIP: gzip.compress(plain[:5000]) + gzip.compress(plain[5000:]),
        LAYER_ZSTD: b"\x50\x2a\x4d\x18\x03\0\0\0abc"
        + zstandard.ZstdCompressor().compress(plain[:5000])
        + zstandard.ZstdCompressor(write_checksum=True).compress(plain[5000:]),
    }.get(media_type, plain)

    result = differ.apply(content, content.add(packed, media_type), bind(root))

    assert result == Descriptor(LAYER, "sha256:" + hashlib.sha256(plain).hexdigest(), len(plain))
    assert (root / "f").stat().st_size == 100_000


def test_the_first_bytes_decide_not_the_suffix(differ: Any, content: Any, members: Any, root: Path) -> None:
    """A layer that is called gzip may be zstd, or nothing."""
    plain = members().file("f").bytes()
    for data in (plain, zstandard.ZstdCompressor().compress(plain)):
        assert differ.apply(content, content.add(data, LAYER_GZIP), bind(root)).size == len(plain)


@pytest.mark.parametrize("media_type", [LAYER_GZIP, LAYER_ZSTD])
def test_streams_that_are_cut_or_damaged_are_refused(
    media_type: str, differ: Any, content: Any, members: Any, root: Path
) -> None:
    """Wherever the cut is; the message names the layer."""
    plain = members().file("f", os.urandom(200_000)).bytes()
    data = gzip.compress(plain) if media_type == LAYER_GZIP else zstandard.ZstdCompressor().compress(plain)
    damaged = data[:50_000] + bytes(100) + data[50_100:]
    checked = [damaged] if media_type == LAYER_GZIP else []
    for broken in (data[:30_000], data[:-1], data[:-5], *checked):
        desc = content.add(broken, media_type)
        with pytest.raises(InvalidArgument, match=f"layer {desc.digest}: "):
            differ.apply(content, desc, bind(root))


def test_a_plain_layer_that_is_compressed_is_unpacked(differ: Any, content: Any, members: Any, root: Path) -> None:
    """Some builders give their layers the wrong media type; a tar that begins as gzip does is a tar all the same."""
    plain = members().file("f").bytes()
    odd = members().file(os.fsdecode(b"\x1f\x8b\x08name")).bytes()
    for data in (gzip.compress(plain), zstandard.ZstdCompressor().compress(plain)):
        assert differ.apply(content, content.add(data, LAYER), bind(root)).size == len(plain)
    assert differ.apply(content, content.add(odd, LAYER), bind(root)).size == len(odd)


def zstd_frame(window_log: int, data: bytes) -> bytes:
    """Return a frame whose decoder has to keep so much, and one raw block in it (RFC 8878, 3.1.1)."""
    assert len(data) < 1 << 17
    head = zstandard.FRAME_HEADER + bytes((0, (window_log - 10) << 3))
    return head + (len(data) << 3 | 1).to_bytes(3, "little") + data


def test_a_window_of_half_a_gigabyte_is_allowed_and_more_is_not_called_damaged(
    differ: Any, content: Any, members: Any, root: Path
) -> None:
    """`zstd --ultra --long=29` writes such layers, and containerd takes them; the message says what is allowed."""
    plain = members().file("f").bytes()

    differ.apply(content, content.add(zstd_frame(29, plain), LAYER_ZSTD), bind(root))
    with pytest.raises(OutOfRange, match="needs more memory than the 512 MiB that are allowed"):
        differ.apply(content, content.add(zstd_frame(30, plain), LAYER_ZSTD), bind(root))

    assert (root / "f").exists()


@pytest.mark.parametrize("missing", [1, 411, 412])
def test_a_tar_that_is_cut_in_its_last_padding(
    differ: Any, content: Any, members: Any, root: Path, missing: int
) -> None:
    """All its data is there; nothing else at its end is needed. A byte of the data less is refused."""
    whole = members().file("f", b"x" * 100).bytes()[: 2 * 512]

    differ.apply(content, content.add(whole[:-missing], LAYER), bind(root))
    assert (root / "f").read_bytes() == b"x" * 100
    with pytest.raises(InvalidArgument, match="truncated"):
        differ.apply(content, content.add(whole[:-413], LAYER), bind(root))


def test_unknown_media_types_are_for_the_next_differ(differ: Any, content: Any, root: Path) -> None:
    """Encrypted ones say what is missing."""
    with pytest.raises(Unimplemented, match="stream processor"):
        differ.apply(content, Descriptor(LAYER_GZIP + "+encrypted", "sha256:" + "0" * 64, 1), bind(root))
    with pytest.raises(Unimplemented, match="text/plain"):
        differ.apply(content, Descriptor("text/plain", "sha256:" + "0" * 64, 1), bind(root))


def test_a_missing_blob_is_not_found(differ: Any, content: Any, root: Path) -> None:
    """The content store's own error arrives."""
    with pytest.raises(NotFound):
        differ.apply(content, Descriptor(LAYER, "sha256:" + "0" * 64, 1), bind(root))


def test_more_mounts_than_a_worker_takes_are_refused(differ: Any, content: Any, members: Any, root: Path) -> None:
    """They do not fit its socket; no image has so many layers."""
    desc = content.add(members().file("f", b"x").bytes(), LAYER)
    with pytest.raises(InvalidArgument, match="the limit is 196608"):
        differ.apply(content, desc, bind(root) * 10_000)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_named(zygote: Any, small: Path, content: Any, members: Any, tmp_path: Path) -> None:
    """With the place and the entry."""
    from windlass_diff.differ import WalkingDiffer

    differ = WalkingDiffer(zygote, tmp_path / "elsewhere", 30.0)
    desc = content.add(members().file("small").file("big", bytes(400_000)).bytes(), LAYER)
    with pytest.raises(ResourceExhausted, match=f"cannot create entry big: no space left in {small}"):
        differ.apply(content, desc, bind(small))


def test_sync_and_no_mounts(differ: Any, content: Any, members: Any, root: Path) -> None:
    """Syncing a bind mount works."""
    differ.apply(content, content.add(members().file("f", b"x").bytes(), LAYER), bind(root), sync_fs=True)
    assert (root / "f").read_text() == "x"


def test_two_layers_at_once_do_not_see_each_other(differ: Any, content: Any, members: Any, tmp_path: Path) -> None:
    """All workers mount on one directory, each in a namespace of its own."""
    from concurrent.futures import ThreadPoolExecutor

    roots = [tmp_path / f"root{i}" for i in range(6)]
    for place in roots:
        place.mkdir()
    descs = [content.add(members().file(f"f{i}", b"x" * 100_000).bytes(), LAYER) for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda i: differ.apply(content, descs[i], bind(roots[i])), range(6)))
    assert [os.listdir(place) for place in roots] == [[f"f{i}"] for i in range(6)]
