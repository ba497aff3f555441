"""Network namespaces with a name: made with their loopback up, entered, and removed for good."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from windlass_linux import netns

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


def interfaces() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex())


def test_a_namespace_has_only_its_loopback_which_is_up(tmp_path: Path) -> None:
    path = tmp_path / "ns" / "a"
    netns.create(path)
    try:
        assert netns.is_there(path)
        assert netns.within(path, interfaces) == ["lo"]

        def talk() -> None:
            with socket.create_server(("127.0.0.1", 0)) as server:
                socket.create_connection(server.getsockname()[:2], timeout=5).close()

        netns.within(path, talk)
    finally:
        netns.remove(path)
    assert not path.exists() and not netns.is_there(path)


def test_the_caller_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a"
    before, threads = os.readlink("/proc/thread-self/ns/net"), threading.active_count()
    netns.create(path)
    try:
        assert netns.within(path, lambda: os.readlink("/proc/thread-self/ns/net")) != before
        with pytest.raises(ZeroDivisionError):
            netns.within(path, lambda: 1 // 0)
        assert os.readlink("/proc/thread-self/ns/net") == before
        assert threading.active_count() == threads
    finally:
        netns.remove(path)


def test_a_name_that_is_taken_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(FileExistsError):
        netns.create(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"
    assert not netns.is_there(tmp_path / "a")


def test_removing_what_is_gone_is_not_an_error(tmp_path: Path) -> None:
    netns.remove(tmp_path / "never")
