"""The connection to a shim that speaks gRPC instead of ttrpc."""

from __future__ import annotations

import asyncio

import grpc
from grpc import aio

from windlass import tracing
from windlass.contracts.rpc import authority
from windlass.contracts.values import grpc_target
from windlass.errors import Unavailable, from_code
from windlass.typing import override
from windlass_runtime_v2.peer import Peer

NAMESPACE_KEY = "containerd-namespace"
DIAL_TIMEOUT = 10.0
NOTICE_TIMEOUT = 1.0


class GrpcPeer(Peer):
    """One channel; made by `connect`. It counts as gone once it is no longer ready (docs/containerd 4.3)."""

    def __init__(self, channel: aio.Channel) -> None:
        """Take over a channel that is ready."""
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._channel = channel
        self._watch = asyncio.create_task(self._until_gone())

    @override
    async def call(self, service: str, method: str, payload: bytes, namespace: str, timeout: float | None) -> bytes:
        span = tracing.current.get() if tracing.active else None
        metadata = ((NAMESPACE_KEY, namespace), *(span.headers().items() if span is not None else ()))
        rpc = self._channel.unary_unary(f"/{service}/{method}", _same, _same)
        try:
            answer: bytes = await rpc(payload, timeout=timeout, metadata=metadata)
        except aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                # A call learns of the connection's end a little before the channel does.
                await asyncio.wait({self.gone}, timeout=NOTICE_TIMEOUT)
                if self.gone.done():
                    raise Unavailable(f"connection ended during {method}: {error.details()}") from None
            raise from_code(error.code().value[0], error.details() or "") from None
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self.gone.done() and current is not None and not current.cancelling():
                # Closing a channel cancels the calls on it, not those who wait for them.
                raise Unavailable(f"connection ended during {method}") from None
            raise
        return answer

    @override
    def close(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)

    async def _until_gone(self) -> None:
        ready = asyncio.create_task(self._channel.wait_for_state_change(grpc.ChannelConnectivity.READY))
        await asyncio.wait({ready, self.gone}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        self.close()
        await self._channel.close()


def _same(data: bytes) -> bytes:
    return data


async def connect(address: str) -> GrpcPeer:
    """Connect to ``unix://<path>``, where shims do not encode the path; raises Unavailable when no process listens."""
    target = grpc_target(address.removeprefix("unix://"))
    channel = aio.insecure_channel(target, authority(target))
    try:
        async with asyncio.timeout(DIAL_TIMEOUT):
            await channel.channel_ready()
    except TimeoutError:
        await channel.close()
        raise Unavailable(f"cannot connect to {address} within {DIAL_TIMEOUT:g} s") from None
    return GrpcPeer(channel)
