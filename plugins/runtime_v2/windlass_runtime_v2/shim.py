"""A shim as the daemon sees it: a connection that speaks the Task API, and the process behind it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from typing import TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from windlass.errors import Error, Internal, InvalidArgument, Unavailable, Unimplemented
from windlass.typing import override
from windlass_api.containerd.task.v3 import shim_pb2 as pb
from windlass_runtime_v2 import ttrpc
from windlass_runtime_v2.bundle import Bootstrap
from windlass_runtime_v2.peer import Peer

M = TypeVar("M", bound=Message)

NEWEST = 3
OLDEST = 2
SANDBOX_SERVICE = "containerd.runtime.sandbox.v1.Sandbox"


class Shim:
    """One shim: owns its connection and, when it was forked for us, a descriptor of its process."""

    def __init__(self, peer: Peer, bootstrap: Bootstrap, namespace: str, pidfd: int | None = None) -> None:
        """Take over ``peer`` and ``pidfd``."""
        self.bootstrap = bootstrap
        self.gone = peer.gone
        self._peer = peer
        self._namespace = namespace
        self._version = bootstrap.version
        self._version_known = False
        self._pidfd = pidfd

    @property
    def forked(self) -> bool:
        """Whether the process is ours alone, so that it may be killed when it does not answer."""
        return self.bootstrap.forked

    async def call(self, method: str, request: Message, answer: type[M], timeout: float | None) -> M:
        """Call the Task API; a shim that turns out to know only version 2 is asked in that.

        Versions 2 and 3 differ in the service's name alone. Raises what the shim
        answered, DeadlineExceeded, Unavailable when it is gone.
        """
        payload = request.SerializeToString()
        try:
            data = await self._call(method, payload, timeout)
        except Unimplemented:
            if self._version_known or self._version == OLDEST:
                raise
            self._version = OLDEST
            data = await self._call(method, payload, timeout)
        self._version_known = True
        return _decode(method, answer, data)

    async def call_sandbox(self, method: str, request: Message, answer: type[M], timeout: float | None) -> M:
        """Call the Sandbox API; raises as `call` does, Unimplemented when the shim does not serve it."""
        payload = request.SerializeToString()
        data = await self._peer.call(SANDBOX_SERVICE, method, payload, self._namespace, timeout)
        return _decode(method, answer, data)

    async def _call(self, method: str, payload: bytes, timeout: float | None) -> bytes:
        service = f"containerd.task.v{self._version}.Task"
        return await self._peer.call(service, method, payload, self._namespace, timeout)

    async def shut_down(self, id: str, timeout: float) -> bool:
        """Ask the shim to end, which it does when it holds no container, and release what is ours of it.

        The shim of a sandbox that the task only shares is not asked: that is for its controller to do.
        A forked shim that is still there after ``timeout`` seconds is killed, and the
        answer is False: it may have been making a container, so there is something to clean up.
        """
        if not self.bootstrap.sandbox:
            with contextlib.suppress(Error):
                await self.call("Shutdown", pb.ShutdownRequest(id=id), Empty, timeout)
        self._peer.close()
        try:
            ended = self._pidfd is None or await process_ended(self._pidfd, timeout)
            if not ended:
                self.kill()
        finally:
            self.release()
        return ended

    def adopt(self, pid: int) -> None:
        """Take hold of the process behind a connection that was found again; it says itself which it is."""
        if pid and self._pidfd is None:
            with contextlib.suppress(OSError):
                self._pidfd = os.pidfd_open(pid)

    def kill(self) -> None:
        """Kill a forked shim; one that others may share is only disconnected."""
        if self.forked and self._pidfd is not None:
            kill_process(self._pidfd)

    def release(self) -> None:
        """Close the connection and the descriptor; the process runs on."""
        self._peer.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def _decode(method: str, answer: type[M], data: bytes) -> M:
    try:
        return answer.FromString(data)
    except DecodeError as error:
        raise Internal(f"shim's answer to {method} cannot be read: {error}") from error


class NoPeer(Peer):
    """The peer of a shim that is gone."""

    def __init__(self) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone.set_result(None)

    @override
    async def call(self, service: str, method: str, payload: bytes, namespace: str, timeout: float | None) -> bytes:
        raise Unavailable("its shim is gone")

    @override
    def close(self) -> None:
        return


def lost_shim(namespace: str, bootstrap: Bootstrap | None) -> Shim:
    """Return a shim that was gone before it could be connected to; nothing may be known of it."""
    return Shim(NoPeer(), bootstrap or Bootstrap(""), namespace)


async def connect(bootstrap: Bootstrap, namespace: str, pidfd: int | None = None) -> Shim:
    """Connect to a shim. Raises Unavailable when no process listens, Unimplemented for a version to come.

    When it fails, ``pidfd`` is still the caller's.
    """
    if not OLDEST <= bootstrap.version <= NEWEST:
        raise Unimplemented(f"shim at {bootstrap.address} speaks version {bootstrap.version}, known are 2 and 3")
    protocol = bootstrap.protocol.lower()
    if protocol == "ttrpc":
        peer: Peer = await ttrpc.connect(bootstrap.address)
    elif protocol == "grpc" and bootstrap.version == NEWEST:
        # grpc takes a tenth of a second to import and few shims speak it
        from windlass_runtime_v2 import grpcpeer

        peer = await grpcpeer.connect(bootstrap.address)
    else:
        raise InvalidArgument(
            f"shim at {bootstrap.address} speaks {bootstrap.protocol!r} in version {bootstrap.version}; "
            "known are ttrpc in 2 and 3, grpc in 3"
        )
    return Shim(peer, bootstrap, namespace, pidfd)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def kill_process(pidfd: int) -> None:
    """Kill a process; one that has ended is fine."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


async def process_ended(pidfd: int, timeout: float) -> bool:
    """Wait for a process to end; return whether it did within ``timeout`` seconds."""
    # Not select(2), which cannot take a descriptor whose number is 1,024 or more.
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if poll.poll(0):
        return True
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, _settle, ended)
    try:
        async with asyncio.timeout(timeout):
            await ended
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
    return True
