"""A sandbox controller behind a socket: what is asked arrives, what it answers comes back, and it may go away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from windlass.contracts.mounts import Mount
from windlass.contracts.sandboxes import Sandbox, SandboxOptions
from windlass.contracts.tasks import Exit, Metric
from windlass.contracts.values import Payload, Platform
from windlass.errors import DeadlineExceeded, NotFound, Unavailable
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2 as pb
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2_grpc
from windlass_api.containerd.types import metrics_pb2, platform_pb2
from windlass_remote import sandboxes
from windlass_remote.records import from_record
from windlass_remote.sandboxes import RemoteSandboxController

SPEC = Payload("a.b.Spec", b"spec")
RECORD = Sandbox("box", "io.runtime", SPEC, SPEC, {"a": "b"}, {"x": SPEC}, "mine")


class Controller(sandbox_pb2_grpc.ControllerServicer):
    """Remembers what it is asked; sandboxes end when `over` is set."""

    def __init__(self) -> None:
        # Any: the request of whatever was called; a test knows what it has called.
        self.asked: list[tuple[str, Any]] = []
        self.over = threading.Event()
        self.waiting = threading.Event()

    def _note(self, request: object, context: grpc.ServicerContext) -> None:
        metadata = dict(context.invocation_metadata())
        self.asked.append((str(metadata["containerd-namespace"]), request))

    def Create(self, request: pb.ControllerCreateRequest, context: grpc.ServicerContext) -> pb.ControllerCreateResponse:
        self._note(request, context)
        return pb.ControllerCreateResponse(sandbox_id=request.sandbox_id)

    def Start(self, request: pb.ControllerStartRequest, context: grpc.ServicerContext) -> pb.ControllerStartResponse:
        self._note(request, context)
        if request.sandbox_id != "box":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such box")
        spec = AnyMessage(type_url=SPEC.type_url, value=SPEC.value)
        at = Timestamp(seconds=5)
        return pb.ControllerStartResponse(pid=7, created_at=at, labels={"l": "m"}, address="a", version=3, spec=spec)

    def Platform(
        self, request: pb.ControllerPlatformRequest, context: grpc.ServicerContext
    ) -> pb.ControllerPlatformResponse:
        return pb.ControllerPlatformResponse(platform=platform_pb2.Platform(os="linux", architecture="arm64"))

    def Stop(self, request: pb.ControllerStopRequest, context: grpc.ServicerContext) -> pb.ControllerStopResponse:
        self._note(request, context)
        return pb.ControllerStopResponse()

    def Wait(self, request: pb.ControllerWaitRequest, context: grpc.ServicerContext) -> pb.ControllerWaitResponse:
        self.waiting.set()
        while not self.over.wait(0.02):
            if not context.is_active():
                return pb.ControllerWaitResponse()
        return pb.ControllerWaitResponse(exit_status=4, exited_at=Timestamp(seconds=9))

    def Status(self, request: pb.ControllerStatusRequest, context: grpc.ServicerContext) -> pb.ControllerStatusResponse:
        return pb.ControllerStatusResponse(pid=7, state="READY", info={"verbose": str(request.verbose)}, address="a")

    def Shutdown(
        self, request: pb.ControllerShutdownRequest, context: grpc.ServicerContext
    ) -> pb.ControllerShutdownResponse:
        self.over.wait(20)
        return pb.ControllerShutdownResponse()

    def Metrics(
        self, request: pb.ControllerMetricsRequest, context: grpc.ServicerContext
    ) -> pb.ControllerMetricsResponse:
        data = AnyMessage(type_url=SPEC.type_url, value=SPEC.value)
        return pb.ControllerMetricsResponse(metrics=metrics_pb2.Metric(timestamp=Timestamp(seconds=1), data=data))

    def Update(self, request: pb.ControllerUpdateRequest, context: grpc.ServicerContext) -> pb.ControllerUpdateResponse:
        self._note(request, context)
        return pb.ControllerUpdateResponse()


@contextmanager
def served(controller: Controller, directory: Path) -> Iterator[None]:
    server = grpc.server(ThreadPoolExecutor(4))
    sandbox_pb2_grpc.add_ControllerServicer_to_server(controller, server)
    server.add_insecure_port(f"unix:{directory}/p.sock")
    server.start()
    try:
        yield
    finally:
        server.stop(0).wait()


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    controller = Controller()
    with served(controller, tmp_path):
        yield controller
        controller.over.set()


async def test_what_is_asked_arrives(controller: Controller, tmp_path: Path) -> None:
    """With the namespace, and the name that the controller has."""
    remote = RemoteSandboxController(f"{tmp_path}/p.sock", "mine")
    options = SandboxOptions((Mount("bind", "/s", ("ro",)),), SPEC, "/net", {"k": "v"})
    await remote.create("ns", RECORD, options)
    await remote.start("ns", "box")
    await remote.stop("ns", "box", 3.0)
    await remote.update("ns", replace(RECORD, labels={}), ["labels"])
    (_, create), (_, start), (_, stop), (_, update) = controller.asked
    assert {namespace for namespace, _ in controller.asked} == {"ns"}
    assert {each.sandboxer for each in (create, start, stop, update)} == {"mine"}
    assert from_record(create.sandbox) == RECORD
    assert (create.sandbox_id, create.netns_path, dict(create.annotations)) == ("box", "/net", {"k": "v"})
    assert (create.rootfs[0].source, create.options.value) == ("/s", b"spec")
    assert stop.timeout_secs == 3
    assert (list(update.fields), from_record(update.sandbox).labels) == (["labels"], {})
    await remote.close()


async def test_what_is_answered_comes_back(controller: Controller, tmp_path: Path) -> None:
    remote = RemoteSandboxController(f"{tmp_path}/p.sock", "mine")
    started = await remote.start("ns", "box")
    assert (started.id, started.pid, started.created_at, started.labels) == ("box", 7, 5 * 10**9, {"l": "m"})
    assert (started.address, started.version, started.spec) == ("a", 3, SPEC)
    status = await remote.status("ns", "box", verbose=True)
    assert (status.pid, status.state, status.info, status.address) == (7, "READY", {"verbose": "True"}, "a")
    assert await remote.platform("ns", "box") == Platform("linux", "arm64")
    assert await remote.metrics("ns", "box") == Metric(10**9, "box", SPEC)
    with pytest.raises(NotFound, match="no such box"):
        await remote.start("ns", "other")
    controller.over.set()
    assert await remote.wait("ns", "box") == Exit(0, 4, 9 * 10**9)
    await remote.close()


async def test_one_that_does_not_answer_is_an_error_in_time(controller: Controller, tmp_path: Path) -> None:
    remote = RemoteSandboxController(f"{tmp_path}/p.sock", "mine", "proxy plugin mine", timeout=0.3)
    with pytest.raises(DeadlineExceeded, match=r"proxy plugin mine did not answer within 0.3 s"):
        await remote.shutdown("ns", "box")
    await remote.close()


async def test_nobody_there_is_told_at_once(tmp_path: Path) -> None:
    remote = RemoteSandboxController(f"{tmp_path}/p.sock", "mine", "proxy plugin mine")
    with pytest.raises(Unavailable, match=rf"proxy plugin mine cannot be reached at {tmp_path}"):
        await remote.status("ns", "box")
    await remote.close()


async def test_who_waits_is_answered_by_a_controller_that_has_been_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxes, "AGAIN", (0.02, 0.1))
    remote = RemoteSandboxController(f"{tmp_path}/p.sock", "mine")
    first, second = Controller(), Controller()
    with served(first, tmp_path):
        waiting = asyncio.create_task(remote.wait("ns", "box"))
        assert await asyncio.to_thread(first.waiting.wait, 10)
    first.over.set()
    await asyncio.sleep(0.1)
    assert not waiting.done()
    with served(second, tmp_path):
        assert await asyncio.to_thread(second.waiting.wait, 10)
        second.over.set()
        assert (await waiting).status == 4
    await remote.close()


async def test_who_waits_no_more_is_let_go(tmp_path: Path) -> None:
    remote = RemoteSandboxController(f"{tmp_path}/p.sock", "mine")
    waiting = asyncio.create_task(remote.wait("ns", "box"))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await remote.close()
