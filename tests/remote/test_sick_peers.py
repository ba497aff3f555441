"""Peers that are slow or answer garbage: an error in time, and no more memory than was asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from windlass.contracts.values import Descriptor
from windlass.errors import DataLoss, DeadlineExceeded, Internal
from windlass_api.containerd.services.content.v1 import content_pb2, content_pb2_grpc
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2, snapshots_pb2_grpc
from windlass_remote.content import RemoteContent
from windlass_remote.peer import Peer
from windlass_remote.snapshots import RemoteSnapshotter

DIGEST = "sha256:" + "0" * 64


class Garbage(content_pb2_grpc.ContentServicer, snapshots_pb2_grpc.SnapshotsServicer):  # type: ignore[misc] # both have a List and an Update; which is asked is the test's
    """Answers Write never, Read without end, and Stat with a kind that there is not."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.sent = 0

    def Info(self, request: object, context: object) -> content_pb2.InfoResponse:
        return content_pb2.InfoResponse(info=content_pb2.Info(digest=DIGEST, size=100_000_000))

    def Read(self, request: object, context: grpc.ServicerContext) -> Iterator[content_pb2.ReadContentResponse]:
        while context.is_active() and self.sent < 10_000:
            self.sent += 1
            yield content_pb2.ReadContentResponse(data=bytes(100_000))

    def Write(self, requests: object, context: object) -> Iterator[content_pb2.WriteContentResponse]:
        self.over.wait(20)
        yield from ()

    # Any: that of the snapshots; of the contents it is not asked.
    def List(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for name in request.filters:
            yield snapshots_pb2.ListSnapshotsResponse(info=[snapshots_pb2.Info(name=name, kind=snapshots_pb2.ACTIVE)])
        self.over.wait(20)

    def Stat(self, request: object, context: object) -> snapshots_pb2.StatSnapshotResponse:
        none = cast("snapshots_pb2.Kind.ValueType", 7)  # that there is none such is the point
        return snapshots_pb2.StatSnapshotResponse(info=snapshots_pb2.Info(name="a", kind=none))


@pytest.fixture
def garbage(tmp_path: Path) -> Iterator[Garbage]:
    servicer = Garbage()  # type: ignore[abstract] # what it does not have is not asked
    server = grpc.server(ThreadPoolExecutor(4))
    content_pb2_grpc.add_ContentServicer_to_server(servicer, server)
    snapshots_pb2_grpc.add_SnapshotsServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{tmp_path}/p.sock")
    server.start()
    yield servicer
    servicer.over.set()
    server.stop(0).wait()


def test_a_writer_does_not_wait_for_ever(garbage: Garbage, tmp_path: Path) -> None:
    with (
        Peer(f"{tmp_path}/p.sock", timeout=0.5) as peer,
        pytest.raises(DeadlineExceeded, match="did not answer in time"),
    ):
        RemoteContent(peer).writer("ref")


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_a_walk_that_gets_nothing_more_ends_long_before_its_deadline(
    garbage: Garbage, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Whether it has begun or not: who cleans up there goes on, and the peer may be well again soon."""
    with (
        Peer(f"{tmp_path}/p.sock", timeout=0.5) as peer,
        pytest.raises(DeadlineExceeded, match=r"sent nothing more for 0\.5 s"),
    ):
        for info, name in zip(RemoteSnapshotter(peer, "x").walk(names), (*names, "none"), strict=True):
            assert info.name == name


def test_more_than_was_asked_for_is_refused(garbage: Garbage, tmp_path: Path) -> None:
    """Long before it has all arrived."""
    with Peer(f"{tmp_path}/p.sock") as peer:
        reader = RemoteContent(peer).reader(Descriptor("", DIGEST, 0))
        with pytest.raises(DataLoss, match="sent other than 1000 bytes"):
            reader.read_at(0, 1000)
    assert garbage.sent < 5000


def test_a_kind_that_there_is_not_is_the_peers_fault(garbage: Garbage, tmp_path: Path) -> None:
    with Peer(f"{tmp_path}/p.sock") as peer, pytest.raises(Internal, match="of kind 7"):
        RemoteSnapshotter(peer, "x").stat("a")
