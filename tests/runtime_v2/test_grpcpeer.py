"""What the connection to a gRPC shim promises."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from grpc import aio

from windlass import errors
from windlass.contracts.values import grpc_target
from windlass_runtime_v2.bundle import Bootstrap
from windlass_runtime_v2.shim import connect


class Echo(grpc.GenericRpcHandler):
    """Answers the method it is asked for, and the namespace."""

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        async def answer(request: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
            metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
            if call.method.endswith("/Kill"):
                await context.abort(grpc.StatusCode.NOT_FOUND, f"{metadata['containerd-namespace']} has none")
            if call.method.endswith("/Wait"):
                await asyncio.sleep(60)
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.mark.parametrize("name", ["s", "a%41?b#c d"])
async def test_a_grpc_shim_is_called_like_any_other(tmp_path: Path, name: str) -> None:
    """Answers, errors and deadlines are the same; its end is noticed; its socket may have any name."""
    server = aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    server.add_insecure_port(grpc_target(f"{tmp_path}/{name}"))
    await server.start()
    assert (tmp_path / name).is_socket()
    shim = await connect(Bootstrap(f"unix://{tmp_path}/{name}", 3, "GRPC"), "tenant")

    await shim.call("Start", Empty(), Empty, 5)
    with pytest.raises(errors.NotFound, match="tenant has none"):
        await shim.call("Kill", Empty(), Empty, 5)
    with pytest.raises(errors.DeadlineExceeded):
        await shim.call("Wait", Empty(), Empty, 0.1)
    waiting = asyncio.create_task(shim.call("Wait", Empty(), Empty, None))
    await asyncio.sleep(0.05)
    assert not shim.gone.done()

    await server.stop(None)

    await asyncio.wait_for(asyncio.shield(shim.gone), 10)
    with pytest.raises(errors.Unavailable):
        await waiting
    assert shim.gone.done()
    shim.release()


@pytest.mark.parametrize(
    ("bootstrap", "error"),
    [
        (Bootstrap("unix:///nowhere", 4), errors.Unimplemented),
        (Bootstrap("unix:///nowhere", 1), errors.Unimplemented),
        (Bootstrap("unix:///nowhere", 2, "grpc"), errors.InvalidArgument),
        (Bootstrap("unix:///nowhere", 3, "carrier-pigeon"), errors.InvalidArgument),
        (Bootstrap("unix:///nowhere", 3), errors.Unavailable),
    ],
)
async def test_protocols_that_are_not_known_are_refused(bootstrap: Bootstrap, error: type[errors.Error]) -> None:
    """With what the shim says it speaks."""
    with pytest.raises(error, match="/nowhere"):
        await connect(bootstrap, "tenant")
