"""One sandbox: its bundle, its shim, and those who wait for its end."""

from __future__ import annotations

import asyncio

from google.protobuf.message import Message

from windlass.contracts.tasks import Exit
from windlass.errors import DeadlineExceeded, Unavailable
from windlass_api.containerd.runtime.sandbox.v1 import sandbox_pb2 as pb
from windlass_runtime_v2 import wire
from windlass_runtime_v2.bundle import Bundle
from windlass_runtime_v2.shared import Shared
from windlass_runtime_v2.shim import M, Shim


class RunningSandbox:
    """A sandbox that its shim has created."""

    def __init__(self, bundle: Bundle, shim: Shim) -> None:
        """Take over ``shim``."""
        self.bundle = bundle
        self.shim = shim
        self.leaving = False
        """Whether the sandbox is on its way out, so that its shim's end is expected."""
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        """Done when the sandbox has been shut down or its shim has died."""
        self._end = Shared(self.ended)
        self._waiting: Shared[Exit] | None = None

    @property
    def id(self) -> str:
        """The sandbox's ID."""
        return self.bundle.id

    async def call(self, method: str, request: Message, answer: type[M], timeout: float | None) -> M:
        """Call the shim; the errors that are not its answers name sandbox and step."""
        try:
            return await self.shim.call_sandbox(method, request, answer, timeout)
        except (DeadlineExceeded, Unavailable) as error:
            raise type(error)(f"sandbox {self.id}: {method}: {error}") from error

    async def wait(self) -> Exit:
        """Return how it ended; however many wait, the shim is asked once."""
        if self._waiting is None or self._waiting.failed:
            self._waiting = Shared(asyncio.create_task(self._wait()))
        return await self._waiting.result()

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._waiting is not None:
            self._waiting.job.cancel()
        self.shim.release()

    def settle(self, exit: Exit) -> None:
        """Answer everyone who waits for its end."""
        if not self.ended.done():
            self.ended.set_result(exit)

    async def _wait(self) -> Exit:
        request = pb.WaitSandboxRequest(sandbox_id=self.id)
        try:
            return wire.exit_of(await self.call("WaitSandbox", request, pb.WaitSandboxResponse, None), 0)
        except Unavailable:
            if not self.shim.gone.done():
                raise
            return await self._end.result()
