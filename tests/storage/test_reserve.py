"""Space kept back for deletions is given up when it is needed and taken again, as far as there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.contracts.snapshots import Kind
from windlass.errors import ResourceExhausted
from windlass_storage import reserve
from windlass_storage.metastore import RESERVE as reserve_size
from windlass_storage.metastore import Metastore
from windlass_storage.reserve import Reserve

SIZE = 1 << 20


def used(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(path: Path) -> None:
    with path.open("ab", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))


def test_space_is_held_spent_and_held_again(tmp_path: Path) -> None:
    """All of it, in real blocks."""
    path = tmp_path / "reserve"
    held = Reserve(path, SIZE)
    assert not held.spend()
    held.refill()
    assert used(path) >= SIZE

    assert held.spend()
    assert not path.exists()
    held.refill()
    assert used(path) >= SIZE


def test_space_held_by_an_earlier_daemon_is_spent(tmp_path: Path) -> None:
    """The file tells, not memory."""
    Reserve(tmp_path / "reserve", SIZE).refill()
    assert Reserve(tmp_path / "reserve", SIZE).spend()


def test_what_is_left_is_taken(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a disk that is nearly full; the rest once there is room."""
    monkeypatch.setattr(reserve, "PAUSE", 0.0)
    with (small / "other").open("wb") as other:
        os.posix_fallocate(other.fileno(), 0, 3 << 20)
    held = Reserve(small / "reserve", 2 << 20)
    held.refill()
    assert 900 << 10 <= used(small / "reserve") <= 1 << 20

    (small / "other").unlink()
    held.refill()
    assert used(small / "reserve") == 2 << 20


def test_a_start_takes_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept back is the log from the first moment, in the same blocks; at the end it is kept back again."""
    path, kept = tmp_path / "metadata.db", tmp_path / "metadata.db-reserve"
    Metastore(path).close()
    inode = kept.stat().st_ino
    # From now on a disk that gives nothing.
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    for name in ("first", "second"):
        store = Metastore(path)
        log = tmp_path / "metadata.db-wal"
        assert (log.stat().st_ino, used(log)) == (inode, reserve_size)
        store.create(Kind.ACTIVE, name)
        store.close()
        assert (kept.stat().st_ino, used(kept), log.exists()) == (inode, reserve_size, False)


def test_an_old_log_that_was_kept_back_never_comes_again(tmp_path: Path) -> None:
    """Its changes are in the database, or were taken back since."""
    path, kept, log = (tmp_path / name for name in ("metadata.db", "metadata.db-reserve", "metadata.db-wal"))
    store = Metastore(path)
    store.create(Kind.ACTIVE, "gone")
    old = log.read_bytes()
    store.remove("gone")
    store.close()
    kept.write_bytes(old)

    store = Metastore(path)
    assert list(store.walk()) == []
    store.close()


def test_a_database_is_its_owners_alone(tmp_path: Path) -> None:
    """So are its log and what is kept back, also where they were others' to read before."""
    path = tmp_path / "metadata.db"
    path.touch(0o644)
    path.chmod(0o644)
    store = Metastore(path)
    store.create(Kind.ACTIVE, "key")
    modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    store.close()
    assert modes == dict.fromkeys(("metadata.db", "metadata.db-wal", "metadata.db-reserve"), 0o600)


def test_a_log_that_a_daemon_left_is_its_owners_alone(tmp_path: Path) -> None:
    """One that was killed, and had it with the mode of its mask."""
    path, log = tmp_path / "metadata.db", tmp_path / "metadata.db-wal"
    store = Metastore(path)
    store.create(Kind.ACTIVE, "key")
    left = path.read_bytes(), log.read_bytes()
    store.close()
    path.write_bytes(left[0])
    log.write_bytes(left[1])
    log.chmod(0o644)

    store = Metastore(path)
    assert log.stat().st_mode & 0o777 == 0o600
    assert [info.name for info in store.walk()] == ["key"]
    store.close()


def test_a_snapshot_is_removed_on_a_full_disk(small: Path) -> None:
    """And the database opens there."""
    store = Metastore(small / "metadata.db")
    for number in range(30):
        store.create(Kind.ACTIVE, f"s{number}")
    fill(small / "other")
    with pytest.raises(ResourceExhausted, match="no space left"):
        for number in range(1000):
            store.create(Kind.ACTIVE, f"more{number}" + "x" * 5000)
    fill(small / "other")
    for number in range(30):
        store.remove(f"s{number}")
        fill(small / "other")
    store.close()
    fill(small / "other")

    again = Metastore(small / "metadata.db")
    assert not [info for info in again.walk() if info.name.startswith("s")]
    again.close()
