"""The reader of bolt databases: what is written is read, and what is damaged is refused with page and reason."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from adopt.boltfile import PAGE_SIZE, BoltFile, Tree, checksum

from windlass.errors import DataLoss, FailedPrecondition
from windlass_adopt import golang
from windlass_adopt.bolt import Bolt, Bucket

TREE: Tree = {
    "small": {"a": b"1", "b": b""},
    "large": {f"key-{number:04}": bytes([number % 256]) * 30 for number in range(500)},
    "nested": {f"bucket-{number}": {"inner": {"name": str(number).encode()}} for number in range(90)},
    "long": {"value": bytes(3 * PAGE_SIZE)},
    "empty": {},
}


def as_tree(bucket: Bucket) -> Tree:
    """Return all that a bucket holds."""
    found: Tree = {bucket.decoded(key): value for key, value in bucket.values.items()}
    for name, inner in bucket.each():
        found[name] = as_tree(inner)
    return found


def read(path: Path) -> Tree:
    with Bolt(path) as bolt:
        return as_tree(bolt.root)


@pytest.mark.parametrize("per_page", [3, 40, 200])
@pytest.mark.parametrize("inline", [0, 1000])
def test_what_is_written_is_read(tmp_path: Path, per_page: int, inline: int) -> None:
    """Trees of several levels, pages that are longer than one, and buckets within values."""
    BoltFile(per_page, inline).write(tmp_path / "db", TREE)
    assert read(tmp_path / "db") == TREE


def test_a_bucket_that_is_not_there_is_none(tmp_path: Path) -> None:
    BoltFile().write(tmp_path / "db", TREE)
    with Bolt(tmp_path / "db") as bolt:
        assert bolt.root.find("nested", "bucket-1", "nothing", "below") is None
        assert list(bolt.root.each("nothing")) == []
        assert bolt.root.find("small") is not None


@pytest.mark.parametrize("transactions", [(4, 3), (3, 4)])
def test_the_newer_meta_page_counts_and_a_torn_one_does_not(tmp_path: Path, transactions: tuple[int, int]) -> None:
    """Whichever of the two was being written when the power failed."""
    path = tmp_path / "db"
    BoltFile().write(path, TREE, transactions=transactions)
    image = bytearray(path.read_bytes())
    older = transactions.index(3) * PAGE_SIZE
    meta = bytearray(image[older + 16 : older + 72])
    struct.pack_into("<Q", meta, 16, 9999)  # a root that is not there
    image[older + 16 : older + 80] = meta + struct.pack("<Q", checksum(bytes(meta)))
    path.write_bytes(image)
    assert read(path) == TREE
    newer = transactions.index(4) * PAGE_SIZE
    image[newer + 40] ^= 1
    path.write_bytes(image)
    with pytest.raises(DataLoss, match="page 9999: there are pages 2 to"):
        read(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "page 0: the file is too short"),
        (b"SQLite format 3\0" + bytes(9000), "page 0: it is not bolt's"),
        (bytes(100_000), "page 0: it is not bolt's"),
    ],
)
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "db").write_bytes(content)
    with pytest.raises(DataLoss, match=reason):
        Bolt(tmp_path / "db")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    BoltFile().write(tmp_path / "db", TREE, version=3)
    with pytest.raises(
        FailedPrecondition, match="has version 3 of bolt's format on page 0, known is 2; install a newer"
    ):
        Bolt(tmp_path / "db")


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    BoltFile().write(tmp_path / "db", TREE)
    image = (tmp_path / "db").read_bytes()
    (tmp_path / "db").write_bytes(image[:-PAGE_SIZE])
    with pytest.raises(DataLoss, match=rf"page {len(image) // PAGE_SIZE - 1}: the file ends before it"):
        Bolt(tmp_path / "db")


def test_pages_that_refer_to_each_other_are_refused(tmp_path: Path) -> None:
    """A loop would never end."""
    path = tmp_path / "db"
    BoltFile(per_page=3).write(path, {f"key-{number}": b"x" for number in range(30)})
    image = bytearray(path.read_bytes())
    [root] = struct.unpack_from("<Q", image, 16 + 16)
    struct.pack_into("<Q", image, root * PAGE_SIZE + 16 + 8, root)
    path.write_bytes(image)
    with pytest.raises(DataLoss, match=f"page {root}: bucket  refers to it twice"):
        read(path)


def test_buckets_that_hold_each_other_are_refused(tmp_path: Path) -> None:
    """Whoever reads them to the bottom reaches it."""
    path = tmp_path / "db"
    BoltFile(inline=0).write(path, {"a": {"b": {"c": b"d"}}})
    image = bytearray(path.read_bytes())
    [root] = struct.unpack_from("<Q", image, 16 + 16)
    at = image.index(b"a", root * PAGE_SIZE + 32)
    struct.pack_into("<Q", image, at + 1, root)
    path.write_bytes(image)
    with pytest.raises(DataLoss, match="buckets are in each other without end"):
        read(path)


def test_elements_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A page of a megabyte could hold 65,535 values of a megabyte each."""
    path = tmp_path / "db"
    BoltFile().write(path, {"a": bytes(200), "b": bytes(200)})
    image = bytearray(path.read_bytes())
    [root] = struct.unpack_from("<Q", image, 16 + 16)
    first = root * PAGE_SIZE + 16
    for at in (first, first + 16):
        struct.pack_into("<I", image, at + 12, PAGE_SIZE - 600)
    path.write_bytes(image)
    with pytest.raises(DataLoss, match="element 1 has bytes of another one"):
        read(path)


@pytest.mark.parametrize(
    ("take", "value"),
    [
        (golang.moment, b"\x01" + bytes([0x7F, *[255] * 7]) + bytes(6)),
        (golang.unsigned, bytes([0xFF] * 9 + [0x7F])),
        (golang.signed, bytes([0xFF] * 9 + [0x02])),
        (golang.unsigned, bytes([0xFF] * 10)),
    ],
)
def test_numbers_that_no_database_holds_are_refused(
    tmp_path: Path, take: Callable[[Bucket, str], int], value: bytes
) -> None:
    """Ours has 64 bits, and Go's variable-length numbers have room for 70."""
    BoltFile().write(tmp_path / "db", {"key": value})
    with Bolt(tmp_path / "db") as bolt, pytest.raises(DataLoss, match="key is "):
        take(bolt.root, "key")


@pytest.mark.parametrize("seed", range(8))
def test_damage_anywhere_is_an_error_with_a_reason_or_makes_no_difference(tmp_path: Path, seed: int) -> None:
    """No other exception, no endless loop, no memory without bound."""
    path, chance = tmp_path / "db", random.Random(seed)
    BoltFile(per_page=5).write(path, TREE)
    image = path.read_bytes()
    for _ in range(40):
        damaged = bytearray(image)
        for _ in range(chance.randint(1, 30)):
            # Mostly in the headers, where it hurts.
            page = chance.randrange(len(image) // PAGE_SIZE) * PAGE_SIZE
            damaged[page + chance.randrange(chance.choice([64, PAGE_SIZE]))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read(path)
        except DataLoss as error:
            assert f"{path} is damaged: page " in str(error)
        except FailedPrecondition as error:
            assert "of bolt's format" in str(error)
