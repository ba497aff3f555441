"""Logs have the kubelet's format, lose nothing, and stay whole lines when the disk is full."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from windlass_cri.containers.logs import Lines, LogFile, timestamp


def texts(*parts: bytes, limit: int = 5) -> list[bytes]:
    """Return what follows the times of the lines that the parts make."""
    lines = Lines("stdout", limit)
    out = b"".join(lines.feed(part) for part in parts) + lines.end()
    return [line.partition(b" ")[2] for line in out.split(b"\n")[:-1]]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([b"a\nb\n"], [b"stdout F a", b"stdout F b"]),
        ([b"\n"], [b"stdout F "]),
        ([b"a\r\n"], [b"stdout F a"]),
        ([b"a", b"b", b"\n"], [b"stdout F ab"]),
        ([b"rest"], [b"stdout P rest"]),
        ([b"\xff\xfe\n"], [b"stdout F \xff\xfe"]),
        ([b"12345\n"], [b"stdout F 12345"]),
        ([b"12345", b"\n"], [b"stdout F 12345"]),
        ([b"12345\r", b"\n"], [b"stdout F 12345"]),
        ([b"123456\n"], [b"stdout P 12345", b"stdout F 6"]),
        ([b"12345", b"67890", b"x"], [b"stdout P 12345", b"stdout P 67890", b"stdout P x"]),
        ([], []),
    ],
)
def test_lines(parts: list[bytes], expected: list[bytes]) -> None:
    assert texts(*parts) == expected


def test_lines_without_a_limit_are_never_split() -> None:
    assert texts(b"x" * 100_000 + b"\n", limit=0) == [b"stdout F " + b"x" * 100_000]


def test_times_have_no_zeros_at_their_end() -> None:
    assert re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.5(Z|[+-]\d\d:\d\d)", timestamp(500_000_000))
    assert b"." not in timestamp(7_000_000_000)


def test_a_log_is_made_with_its_directory_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "new/dir/0.log"
    for text in (b"one\n", b"two\n"):
        log = LogFile(path)
        log.write(text)
        log.close()
    assert path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o640 & ~_umask()
    assert path.parent.stat().st_mode & 0o777 == 0o755


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_log_is_reopened_after_it_was_renamed(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    log = LogFile(path)
    log.write(b"old\n")
    path.rename(tmp_path / "0.log.1")
    log.write(b"old too\n")
    log.reopen()
    log.write(b"new\n")
    log.close()
    assert (tmp_path / "0.log.1").read_bytes() == b"old\nold too\n"
    assert path.read_bytes() == b"new\n"


def test_a_log_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "0.log").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        LogFile(tmp_path / "0.log")
    assert not (tmp_path / "target").exists()


def test_a_full_disk_leaves_no_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "0.log"
    log = LogFile(path)
    log.write(b"whole\n")
    real = os.write
    room = [3, 0]

    def write(fd: int, data: bytes) -> int:
        left = room.pop(0)
        if not left:
            raise OSError(28, "No space left on device")
        return real(fd, data[:left])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        log.write(b"torn line\n")
    monkeypatch.undo()
    log.write(b"after\n")
    log.close()
    assert path.read_bytes() == b"whole\nafter\n"


def test_a_full_disk_is_said_once_for_many_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = LogFile(tmp_path / "0.log")

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for _ in range(1000):
        log.append(b"line\n")
    monkeypatch.undo()
    log.append(b"after\n")
    log.close()
    assert (tmp_path / "0.log").read_bytes() == b"after\n"
    first, last = (record.getMessage() for record in caplog.records)
    assert first == f"5 bytes of a container's log are lost, {tmp_path}/0.log: No space left on device"
    assert last.startswith("4995 bytes of a container's log are lost, ")
