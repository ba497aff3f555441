"""Peers whose gRPC is not grpc's: they look at :authority, and refuse calls by HTTP/2's own means."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import hpack
import pytest

from windlass.errors import Error, Internal, Unavailable, Unimplemented
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2 as pb
from windlass_api.containerd.services.snapshots.v1.snapshots_pb2_grpc import SnapshotsStub
from windlass_client.client import Client
from windlass_remote.peer import Peer
from windlass_remote.sandboxes import RemoteSandboxController

HEADERS, RST_STREAM, SETTINGS, PING = 1, 3, 4, 6
PROTOCOL_ERROR, REFUSED_STREAM = 1, 7
HOST = re.compile(r"[A-Za-z0-9._~:\[\]-]+")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def decoded(decoder: hpack.Decoder, block: bytes) -> dict[str, str]:
    """Return the fields of a block; hpack has them as bytes only if asked."""
    return {str(name): str(value) for name, value in decoder.decode(block)}


class Strict:
    """A server like those of Rust's h2: an :authority that is no host name is a PROTOCOL_ERROR; knows no method.

    With ``refusal`` every call is refused with that error.
    """

    def __init__(self, path: Path) -> None:
        self.refusal = 0
        self.authorities: list[str | None] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._peers: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for peer in self._peers:
            with contextlib.suppress(OSError):  # it has gone already
                peer.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._peers.append(peer)
            self._threads.append(threading.Thread(target=self._serve, args=(peer,)))
            self._threads[-1].start()

    def _serve(self, peer: socket.socket) -> None:
        decoder, data, greeted = hpack.Decoder(), b"", False
        with peer:
            peer.sendall(frame(SETTINGS, 0, 0))
            while part := _read(peer):
                data += part
                if not greeted and len(data) >= 24:
                    data, greeted = data[24:], True
                while greeted and len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3]):
                    size = int.from_bytes(data[:3])
                    kind, flags, stream = struct.unpack(">BBI", data[3:9])
                    payload, data = data[9 : 9 + size], data[9 + size :]
                    if kind in (SETTINGS, PING) and not flags & 1:
                        peer.sendall(frame(kind, 1, 0, payload if kind == PING else b""))
                    if kind == HEADERS:
                        fields = decoded(decoder, payload[5:] if flags & 0x20 else payload)
                        peer.sendall(self._answer(stream, fields.get(":authority")))

    def _answer(self, stream: int, authority: str | None) -> bytes:
        self.authorities.append(authority)
        error = self.refusal or (0 if authority is None or HOST.fullmatch(authority) else PROTOCOL_ERROR)
        if error:
            return frame(RST_STREAM, 0, stream, struct.pack(">I", error))
        fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")]
        return frame(HEADERS, 5, stream, hpack.Encoder().encode(fields))


def _read(peer: socket.socket) -> bytes:
    try:
        return peer.recv(65536)
    except OSError:
        return b""


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Strict]:
    server = Strict(tmp_path / "p.sock")
    yield server
    server.close()


def stat(peer: Peer) -> None:
    peer.call(SnapshotsStub(peer.channel).Stat, pb.StatSnapshotRequest(key="k"))


@pytest.mark.parametrize("form", ["{}", "unix://{}", "unix:{}"])
def test_a_call_names_a_host_that_any_server_takes(strict: Strict, tmp_path: Path, form: str) -> None:
    """The path of the socket, which gRPC would send, is no host name; Go's clients send localhost."""
    with Peer(form.format(tmp_path / "p.sock")) as peer, pytest.raises(Unimplemented):
        stat(peer)
    assert strict.authorities == ["localhost"]


async def test_calls_on_the_loop_and_of_the_client_too(strict: Strict, tmp_path: Path) -> None:
    """Sandbox controllers, and a daemon that is no Windlass."""
    controller = RemoteSandboxController(str(tmp_path / "p.sock"), "mine")
    with pytest.raises(Unimplemented):
        await controller.status("ns", "box")
    await controller.close()
    async with Client(str(tmp_path / "p.sock")) as client:
        with pytest.raises(Unimplemented):
            await client.version()
    assert strict.authorities == ["localhost"] * 2


@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [
        (PROTOCOL_ERROR, Internal, "refused the call by HTTP/2's PROTOCOL_ERROR; its log may say why"),
        (REFUSED_STREAM, Unavailable, "refused the call by HTTP/2's REFUSED_STREAM; try again"),
    ],
)
async def test_a_refusal_is_no_absence(
    strict: Strict, tmp_path: Path, number: int, kind: type[Error], told: str
) -> None:
    """Who looks whether the peer runs, because the message says so, finds that it does."""
    strict.refusal = number
    path = tmp_path / "p.sock"
    with Peer(str(path), name="proxy plugin mine") as peer, pytest.raises(kind) as caught:
        stat(peer)
    assert str(caught.value) == f"proxy plugin mine at {path} {told}"
    async with Client(str(path)) as client:
        with pytest.raises(kind) as caught:
            await client.version()
    assert str(caught.value).startswith(f"daemon at {path} refused the call by HTTP/2's")


def test_a_peer_that_is_away_is_told_as_such(tmp_path: Path) -> None:
    """With the address, and what to do."""
    path = tmp_path / "none.sock"
    with Peer(str(path), name="proxy plugin mine", timeout=5) as peer, pytest.raises(Unavailable) as caught:
        stat(peer)
    assert str(caught.value).startswith(f"proxy plugin mine cannot be reached at {path}; see whether it runs")
