"""Sockets appear finished, replace what is stale and nothing else."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_server import sockets

OWNER = (os.geteuid(), os.getegid())


@contextmanager
def listen(path: Path) -> Iterator[sockets.Place]:
    place = sockets.listen(path, OWNER)
    try:
        yield place
    finally:
        place.socket.close()


def test_a_socket_has_its_mode_when_it_appears(tmp_path: Path) -> None:
    """Only owner and group can ever connect; the parent is made for it."""
    path = tmp_path / "run" / "w.sock"
    with listen(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.is_socket()
        assert os.listdir(path.parent) == ["w.sock"]


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """What a killed daemon left is not in the way."""
    path = tmp_path / "w.sock"
    with listen(path):
        pass
    assert path.is_socket()
    with listen(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    """A second daemon on one address does not take it from the first."""
    path = tmp_path / "w.sock"
    with listen(path):
        with pytest.raises(FailedPrecondition, match="in use by another daemon"):
            sockets.listen(path, OWNER)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_file_in_the_way_is_not_deleted(tmp_path: Path) -> None:
    """A mistyped address removes no file."""
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(FailedPrecondition, match="it is not a socket"):
        sockets.listen(path, OWNER)
    assert path.read_text() == "data"


def test_a_path_that_no_socket_can_have_is_refused_with_its_length(tmp_path: Path) -> None:
    """The kernel would only say "AF_UNIX path too long"."""
    path = tmp_path / ("x" * 120)
    with pytest.raises(InvalidArgument, match=rf"has {len(str(path))} bytes, the limit is 104"):
        sockets.listen(path, OWNER)


def test_an_address_at_the_limit_works(tmp_path: Path) -> None:
    """Nothing is put in front of it or behind it."""
    path = tmp_path / ("x" * (sockets.LONGEST - len(str(tmp_path)) - 1))
    with listen(path):
        assert path.is_socket()


def test_a_socket_has_the_path_that_it_was_given(tmp_path: Path) -> None:
    """On both ends: peers that write down, or allow, whom they are connected to see it, and so does `ss`."""
    path = tmp_path / "w.sock"
    with listen(path) as place, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        accepted, _ = place.socket.accept()
        with accepted:
            assert accepted.getsockname() == client.getpeername() == place.socket.getsockname() == str(path)
        assert f" {path}\n" in Path("/proc/net/unix").read_text()


def test_a_socket_that_is_closed_is_gone(tmp_path: Path) -> None:
    """Twice is fine; a successor's at the same path stays."""
    path = tmp_path / "w.sock"
    place = sockets.listen(path, OWNER)
    place.close()
    assert not path.exists()
    place.close()
    first = sockets.listen(path, OWNER)
    path.unlink()
    with listen(path):
        first.close()
        assert path.is_socket()
