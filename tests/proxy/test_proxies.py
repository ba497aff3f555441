"""Plugins behind sockets: an entry of the configuration is a plugin; a peer that is away is an error, not a wait."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from windlass.config import factories
from windlass.config.settings import ProxyPlugin, TopLevel
from windlass.contracts.snapshots import SNAPSHOTTER, Kind
from windlass.discovery import Found
from windlass.errors import StartError, Unavailable
from windlass.plugin import Plugin
from windlass_remote.peer import Peer
from windlass_remote.snapshots import RemoteSnapshotter

NATIVE = "io.containerd.snapshotter.v1.native"
WINDLASS = [sys.executable, "-c", "import sys; from windlass_client.cli import main; sys.exit(main())"]


@contextmanager
def served(directory: Path, uri: str = NATIVE, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Serve a plugin at ``directory/p.sock``."""
    socket = directory / "p.sock"
    command = [*WINDLASS, "plugin", "serve", uri, "--address", str(socket), "--root", str(directory / "root"), *more]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            if b"is ready" in line:
                break
        else:
            pytest.fail(f"{uri} is not served")
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def retried(call: Callable[[], object]) -> object:
    """Return what a call gives when it is repeated until it is not Unavailable."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return call()
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
def made() -> Callable[..., list[Found]]:
    def make(**proxies: ProxyPlugin) -> list[Found]:
        return factories.made(TopLevel(proxy_plugins=proxies), [Found(NATIVE, "somebody 1")])

    return make


def test_an_entry_is_a_plugin(made: Callable[..., list[Found]]) -> None:
    """Its type says which contract, its name is the ID."""
    kinds = {"a": "snapshot", "b": "snapshotter", "c": "content", "d": "diff", "e": "sandbox"}
    found = made(**{name: ProxyPlugin(kind, "/x") for name, kind in kinds.items()})  # type: ignore[arg-type]  # a Literal
    assert [entry.uri for entry in found] == [
        "io.containerd.snapshotter.v1.a",
        "io.containerd.snapshotter.v1.b",
        "io.containerd.content.v1.c",
        "io.containerd.differ.v1.d",
        "io.containerd.sandbox.controller.v1.e",
    ]
    assert all(isinstance(entry.plugin, Plugin) for entry in found)


def test_a_name_that_is_taken_is_refused(made: Callable[..., list[Found]]) -> None:
    with pytest.raises(StartError, match="native is brought by somebody 1"):
        made(native=ProxyPlugin("snapshot", "/x"))


def test_a_disabled_one_is_listed_only() -> None:
    top = TopLevel(proxy_plugins={"a": ProxyPlugin("snapshot", "/x")})
    (found,) = factories.made(top, [], [f"{SNAPSHOTTER.uri}.a"])
    assert found.plugin is None


def test_nobody_there_is_told_at_once(tmp_path: Path) -> None:
    """With the name and the address."""
    with Peer(str(tmp_path / "p.sock"), name="proxy plugin x") as peer:
        begin = time.monotonic()
        with pytest.raises(Unavailable, match=rf"proxy plugin x cannot be reached at {tmp_path}"):
            RemoteSnapshotter(peer, "x").stat("a")
        assert time.monotonic() - begin < 5


def test_a_peer_that_comes_back_is_found_again(tmp_path: Path) -> None:
    """Killed during its life and started again on the same files, with a socket that the dead one left."""
    with Peer(str(tmp_path / "p.sock")) as peer:
        remote = RemoteSnapshotter(peer, "native")
        with served(tmp_path):
            retried(lambda: remote.prepare("a"))
        with pytest.raises(Unavailable):
            remote.stat("a")
        with served(tmp_path):
            retried(lambda: remote.stat("a"))
            assert remote.stat("a").kind == Kind.ACTIVE


def test_a_peer_that_accepts_late_is_waited_for(tmp_path: Path) -> None:
    """On a busy machine a connection takes its time; the call's deadline counts, not the connection's."""
    with served(tmp_path) as process, Peer(str(tmp_path / "p.sock")) as peer:
        process.send_signal(signal.SIGSTOP)
        wake = threading.Timer(0.6, process.send_signal, [signal.SIGCONT])
        wake.start()
        RemoteSnapshotter(peer, "native").prepare("a")
        wake.join()


def test_a_content_store_is_served(tmp_path: Path) -> None:
    from windlass.contracts.values import Descriptor
    from windlass_conformance.content import digest_of
    from windlass_remote.content import RemoteContent

    with served(tmp_path, "io.containerd.content.v1.content"), Peer(str(tmp_path / "p.sock")) as peer:
        store = RemoteContent(peer)
        with closing(store.writer("ref")) as writer:
            writer.write(b"hello")
            writer.commit()
        with closing(store.reader(Descriptor("", digest_of(b"hello"), 0))) as reader:
            assert reader.read_at(1, 100) == b"ello"
            with open(reader.fileno(), "rb", closefd=False) as copy:
                assert copy.read() == b"hello"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["io.containerd.snapshotter.v1.nothing", "--address", "/tmp/x.sock"], "is not installed; there are: "),
        (["io.containerd.event.v1.exchange", "--address", "/tmp/x.sock"], "other plugins cannot be served"),
    ],
)
def test_what_cannot_be_served_is_one_line(arguments: list[str], reason: str) -> None:
    done = subprocess.run([*WINDLASS, "plugin", "serve", *arguments], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
