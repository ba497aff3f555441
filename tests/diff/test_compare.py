"""Layers made from two trees (docs/containerd 8.5, "Diff tar exact streams" and "FSSuite")."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import socket
import tarfile
import time
from pathlib import Path
from typing import Any  # fixtures whose classes live in conftest, which tests cannot import

import pytest

from windlass.contracts.diff import LABEL_UNCOMPRESSED, LAYER, LAYER_GZIP, LAYER_ZSTD, CompareOptions
from windlass.contracts.mounts import Mount
from windlass.errors import Internal, Unimplemented
from windlass_storage import trees


def bind(path: Path) -> list[Mount]:
    return [Mount("bind", str(path), ("rbind", "ro"))]


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """A lower tree and its copy."""
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for name in ("a/b", "a/c", "z"):
        (lower / name).mkdir(parents=True)
        (lower / name / "f").write_text(name)
    os.link(lower / "z/f", lower / "z/linked")
    shutil.copytree(lower, upper, symlinks=True)
    (upper / "z/linked").unlink()
    os.link(upper / "z/f", upper / "z/linked")
    for path in lower.rglob("*"):
        os.utime(path, ns=(0, 1_234_567_890_123_456_789))
        os.utime(upper / path.relative_to(lower), ns=(0, 1_234_567_890_123_456_789))
    return lower, upper


@pytest.fixture
def stream(differ: Any, content: Any, sides: tuple[Path, Path]) -> Any:
    """A function that compares the sides and returns the layer's members."""

    def stream(options: CompareOptions | None = None) -> list[tarfile.TarInfo]:
        desc = differ.compare(content, bind(sides[0]), bind(sides[1]), options or CompareOptions(LAYER))
        return tarfile.TarFile(fileobj=io.BytesIO(content.blobs[desc.digest])).getmembers()

    return stream


def names(found: list[tarfile.TarInfo]) -> list[str]:
    return [m.name + {tarfile.DIRTYPE: "/", tarfile.LNKTYPE: " -> " + m.linkname}.get(m.type, "") for m in found]


def test_equal_trees_make_an_empty_layer(stream: Any) -> None:
    """Not one entry, not even the root's."""
    assert stream() == []


def test_parents_come_first_and_once(stream: Any, sides: tuple[Path, Path]) -> None:
    """With their current mode."""
    (sides[1] / "a/b/new").write_text("1")
    (sides[1] / "a/c/f").write_text("changed")
    (sides[1] / "a").chmod(0o711)
    found = stream()
    assert names(found) == ["a/", "a/b/", "a/b/new", "a/c/", "a/c/f"]
    assert found[0].mode == 0o711


def test_one_whiteout_for_a_tree(stream: Any, sides: tuple[Path, Path]) -> None:
    """In the order of names, with time 0, and nothing for what was below."""
    shutil.rmtree(sides[1] / "a")
    (sides[1] / "z/f").unlink()
    (sides[1] / "z/linked").unlink()
    found = stream()
    assert names(found) == [".wh.a", "z/", "z/.wh.f", "z/.wh.linked"]
    assert {m.mtime for m in found if ".wh." in m.name} == {0}


def test_a_new_hard_link_pulls_in_the_other_names(stream: Any, sides: tuple[Path, Path]) -> None:
    """The new name carries the content; names that come before it are linked to it."""
    os.link(sides[1] / "a/b/f", sides[1] / "a/b/after")
    assert names(stream()) == ["a/", "a/b/", "a/b/after", "a/b/f -> a/b/after"]


def test_a_changed_file_with_two_names_is_stored_once(stream: Any, sides: tuple[Path, Path]) -> None:
    """The second is a link."""
    (sides[1] / "z/f").write_text("longer than before")
    assert names(stream()) == ["z/", "z/f", "z/linked -> z/f"]


def test_a_name_that_sorts_before_its_source(stream: Any, sides: tuple[Path, Path]) -> None:
    """An unchanged file with a new name that comes later."""
    os.link(sides[1] / "a/c/f", sides[1] / "a/c/zz")
    assert names(stream()) == ["a/", "a/c/", "a/c/zz", "a/c/f -> a/c/zz"]


def test_modes_owners_and_attributes_are_changes(stream: Any, sides: tuple[Path, Path]) -> None:
    """Also when times and sizes are the same."""
    os.chown(sides[1] / "a/b/f", 5, 5)
    os.setxattr(sides[1] / "a/c/f", "user.colour", b"red\0")
    (sides[1] / "z").chmod(0o700)
    found = {m.name: m for m in stream()}
    assert list(found) == ["a", "a/b", "a/b/f", "a/c", "a/c/f", "z"]
    assert found["a/c/f"].pax_headers["SCHILY.xattr.user.colour"] == "red\0"


def test_whole_seconds_make_the_content_count(stream: Any, sides: tuple[Path, Path]) -> None:
    """A time without a fraction may have been cut."""
    for side, text in zip(sides, ("one", "two"), strict=True):
        (side / "z/f").write_text(text)
        os.utime(side / "z/f", (1000, 1000))
    assert names(stream()) == ["z/", "z/f", "z/linked -> z/f"]


def test_sockets_are_ignored(stream: Any, sides: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """tar has no type for them."""
    monkeypatch.chdir(sides[1])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        assert stream() == []


def test_times_are_whole_seconds_and_clamped(stream: Any, sides: tuple[Path, Path]) -> None:
    """SOURCE_DATE_EPOCH only makes times earlier."""
    (sides[1] / "new").touch()
    (sides[1] / "old").touch()
    os.utime(sides[1] / "old", ns=(0, 5_900_000_000))
    found = stream(CompareOptions(LAYER, source_date_epoch=1_000_000_000_500_000_000))
    assert {m.name: m.mtime for m in found} == {"new": 1_000_000_000, "old": 5}


def test_long_names_and_large_numbers(stream: Any, sides: tuple[Path, Path]) -> None:
    """What ustar cannot hold goes into pax records."""
    name = "ü" * 120
    (sides[1] / name).write_text("x")
    os.chown(sides[1] / name, 4_000_000_000, 3_000_000)
    (found,) = stream()
    assert (found.name, found.uid, found.gid, found.uname) == (name, 4_000_000_000, 3_000_000, "")


@pytest.mark.parametrize("media_type", [LAYER, LAYER_GZIP, LAYER_ZSTD])
def test_the_same_trees_make_the_same_bytes(
    media_type: str, differ: Any, content: Any, sides: tuple[Path, Path]
) -> None:
    """Whenever they are compared; the second time the blob is there, and only its labels are added."""
    (sides[1] / "new").write_bytes(b"text " * 100_000)
    first = differ.compare(content, bind(sides[0]), bind(sides[1]), CompareOptions(media_type))
    time.sleep(1.01 if media_type == LAYER_GZIP else 0)
    again = differ.compare(content, bind(sides[0]), bind(sides[1]), CompareOptions(media_type, labels={"a": "b"}))
    assert first == again
    assert content.labels[first.digest]["a"] == "b"
    assert content.ingests == {}


def test_a_compressed_layer_carries_its_diff_id(differ: Any, content: Any, sides: tuple[Path, Path]) -> None:
    """As the label that unpacking looks for; its size is that of the blob."""
    (sides[1] / "new").write_bytes(b"text " * 100_000)
    desc = differ.compare(content, bind(sides[0]), bind(sides[1]), CompareOptions(ref="mine"))
    plain = gzip.decompress(content.blobs[desc.digest])
    assert content.labels[desc.digest][LABEL_UNCOMPRESSED] == "sha256:" + hashlib.sha256(plain).hexdigest()
    assert (desc.media_type, desc.size) == (LAYER_GZIP, len(content.blobs[desc.digest]))


def test_no_lower_is_an_empty_tree(differ: Any, content: Any, sides: tuple[Path, Path]) -> None:
    """The first layer of an image holds everything."""
    desc = differ.compare(content, [], bind(sides[1]), CompareOptions(LAYER))
    found = tarfile.TarFile(fileobj=io.BytesIO(content.blobs[desc.digest])).getmembers()
    assert names(found) == ["a/", "a/b/", "a/b/f", "a/c/", "a/c/f", "z/", "z/f", "z/linked -> z/f"]


def test_types_that_cannot_be_made_are_for_the_next_differ(differ: Any, content: Any) -> None:
    """Nothing is opened for them."""
    with pytest.raises(Unimplemented, match="text/plain"):
        differ.compare(content, [], [], CompareOptions("text/plain"))


def test_what_compare_makes_apply_restores(differ: Any, content: Any, sides: tuple[Path, Path], facts: Any) -> None:
    """Basic, deletion, update, kinds, modes, links: the lower tree becomes the upper."""
    lower, upper = sides
    shutil.rmtree(upper / "a/b")
    (upper / "a/b").write_text("now a file")
    (upper / "a/c/f").unlink()
    (upper / "a/c/f").mkdir()
    (upper / "a/c/f/deep").symlink_to("/etc/passwd")
    (upper / "z").rename(upper / "y")
    os.mkfifo(upper / "y/fifo", 0o640)
    os.mknod(upper / "y/dev", 0o20600, os.makedev(5, 1))
    (upper / "y/caps").write_text("x")
    os.setxattr(upper / "y/caps", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    for path in [*upper.rglob("*")]:
        os.utime(path, (1_500_000_000, 1_500_000_000), follow_symlinks=False)

    desc = differ.compare(content, bind(lower), bind(upper), CompareOptions())
    differ.apply(content, desc, [Mount("bind", str(lower), ("rbind", "rw"))])

    assert facts(lower) == facts(upper)


def test_a_tree_that_cannot_be_compared_is_refused_with_the_step(
    differ: Any, content: Any, sides: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths may be longer than Linux takes; nothing is left of the ingest."""
    for level in range(20):
        monkeypatch.chdir(sides[1] if level == 0 else "d" * 255)
        os.mkdir("d" * 255)
    with pytest.raises(Internal, match=r"compare: .*File name too long"):
        differ.compare(content, bind(sides[0]), bind(sides[1]), CompareOptions(LAYER, "ref"))
    assert not content.ingests
    monkeypatch.undo()
    trees.remove(sides[1])
