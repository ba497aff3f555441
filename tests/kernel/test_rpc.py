"""Services: errors become their statuses, headers reach the object, what it lacks is UNIMPLEMENTED."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.empty_pb2 import Empty

from windlass.contracts import rpc
from windlass.errors import NotFound
from windlass_api.containerd.services.leases.v1 import leases_pb2 as pb
from windlass_api.containerd.services.leases.v1 import leases_pb2_grpc as stubs
from windlass_server.grpc.answers import Limits
from windlass_server.grpc.server import Server


class Leases:
    """Some of the Leases service."""

    async def create(self, request: pb.CreateRequest, call: rpc.Call) -> pb.CreateResponse:
        return pb.CreateResponse(lease=pb.Lease(id=f"{call.namespace}/{call.lease}/{request.id}"))

    async def delete(self, request: pb.DeleteRequest, call: rpc.Call) -> Empty:
        raise NotFound(f"lease {request.id} does not exist")


@pytest.fixture
async def leases(tmp_path: Path) -> AsyncIterator[Any]:
    server = Server(Limits(1 << 20, 1 << 20))
    rpc.serve(server, pb.DESCRIPTOR.services_by_name["Leases"], Leases())
    listener = await asyncio.get_running_loop().create_unix_server(server.connection, str(tmp_path / "s"))
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
        yield stubs.LeasesStub(channel)
    listener.close()
    await server.stop(0.2)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_the_headers_are_what_the_call_knows(leases: Any) -> None:
    """Of several values the first counts."""
    metadata = [("containerd-namespace", "a"), ("containerd-namespace", "b"), ("containerd-lease", "l")]
    answer = await leases.Create(pb.CreateRequest(id="x"), metadata=metadata)
    assert answer.lease.id == "a/l/x"


async def test_a_call_without_namespace_is_refused(leases: Any) -> None:
    """With the words that clients know."""
    assert await refused(leases.Create(pb.CreateRequest())) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "namespace is required",
    )


async def test_a_namespace_that_is_no_identifier_is_refused(leases: Any) -> None:
    """It would become part of paths."""
    code, _ = await refused(leases.Create(pb.CreateRequest(), metadata=[("containerd-namespace", "../x")]))
    assert code == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_error_travels_with_its_status_and_message(leases: Any) -> None:
    """Nothing is added to what the plugin said."""
    assert await refused(leases.Delete(pb.DeleteRequest(id="7"))) == (
        grpc.StatusCode.NOT_FOUND,
        "lease 7 does not exist",
    )


async def test_a_message_is_one_line_that_no_terminal_obeys(leases: Any) -> None:
    """It quotes what a stranger may have chosen."""
    _, told = await refused(leases.Delete(pb.DeleteRequest(id="\x1b[2J\r\nü")))
    assert told == "lease  [2J  ü does not exist"


async def test_a_stream_that_ends_early_has_ended_when_the_call_has() -> None:
    ended = []

    class Lists:
        async def list(self, request: object, call: rpc.Call) -> AsyncIterator[object]:
            try:
                yield request
                yield request
            finally:
                await asyncio.sleep(0)
                ended.append(request)

    file = FileDescriptorProto(name="t.proto", package="t")
    file.message_type.add(name="M")
    file.service.add(name="S").method.add(name="List", input_type=".t.M", output_type=".t.M", server_streaming=True)
    service = DescriptorPool().AddSerializedFile(file.SerializeToString()).services_by_name["S"]
    answer = rpc.methods_of(service, Lists())["List"].handler("it", rpc.Call())
    assert isinstance(answer, AsyncGenerator)
    assert await anext(answer) == "it"
    await answer.aclose()
    assert ended == ["it"]


async def test_a_method_that_the_object_lacks_is_unimplemented(leases: Any) -> None:
    """Nothing pretends."""
    code, _ = await refused(leases.List(pb.ListRequest()))
    assert code == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("wire", "ours"), [("ListPids", "list_pids"), ("CloseIO", "close_io"), ("Get", "get"), ("ResizePty", "resize_pty")]
)
def test_methods_are_named_as_python_names_them(wire: str, ours: str) -> None:
    """One rule for every service."""
    assert rpc.method_name(wire) == ours
