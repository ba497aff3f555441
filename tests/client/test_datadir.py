"""Where the client keeps its files."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from windlass.errors import Unavailable
from windlass_client import datadir
from windlass_client.cli import Where
from windlass_client.datadir import DataDirectory


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(datadir.VARIABLE, str(tmp_path / "data"))
    return tmp_path / "data"


def test_a_socket_has_one_directory_however_it_is_spelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = DataDirectory.of(Where(f"{tmp_path}/d.sock", "default"))
    assert DataDirectory.of(Where(f"unix://{tmp_path}/d.sock", "default")) == plain
    assert DataDirectory.of(Where(f"unix:{tmp_path}/d%2Esock", "default")) == plain
    assert DataDirectory.of(Where("d.sock", "default")) == plain
    assert DataDirectory.of(Where("other.sock", "default")) != plain
    assert DataDirectory.of(Where("d.sock", "other")).path.parent == plain.path.parent


def test_root_and_a_plain_user_have_different_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(datadir.VARIABLE)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert datadir.root() == Path("/var/lib/windlass-client")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/u/data")
    assert datadir.root() == Path("/home/u/data/windlass-client")


def test_a_file_is_written_whole_and_private(data: Path) -> None:
    datadir.write(data / "a/b/hosts", "one")
    datadir.write(data / "a/b/hosts", "two", 0o644)
    assert (data / "a/b/hosts").read_text() == "two"
    assert stat.S_IMODE((data / "a/b/hosts").stat().st_mode) == 0o644
    assert stat.S_IMODE((data / "a/b").stat().st_mode) == 0o700
    assert [each.name for each in (data / "a/b").iterdir()] == ["hosts"]


def test_a_place_that_cannot_be_made_is_one_line(data: Path) -> None:
    data.write_text("a file")
    with pytest.raises(Unavailable, match="cannot be made"):
        datadir.directory(data / "x")


def test_a_lock_keeps_another_out() -> None:
    place = DataDirectory.of(Where("d.sock", "default"))
    order: list[str] = []

    def other() -> None:
        with place.locked("volumes"):
            order.append("other")

    with place.locked("volumes"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]
