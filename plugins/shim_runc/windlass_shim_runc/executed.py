"""The life of a shim that was executed rather than forked from the zygote."""

from __future__ import annotations

import os
from _socket import socket

from windlass.errors import Code
from windlass.process import nofile
from windlass_api.ttrpc import framing as ttrpc
from windlass_shim_runc import entry, messages
from windlass_shim_runc.loop import Loop
from windlass_shim_runc.publisher import Publisher
from windlass_shim_runc.reaper import Reaper
from windlass_shim_runc.spawn import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_shim_runc.params import Start

PUBLISH_TIMEOUT = 5.0


def serve(listener: socket, wanted: Start) -> int:
    """Serve until the daemon says Shutdown."""
    entry.prepare_process()
    nofile.raise_limit()

    def publisher(loop: Loop, reaper: Reaper) -> Publisher:
        if wanted.ttrpc_address:
            return Publisher(loop, wanted.ttrpc_address, wanted.namespace)
        return ExecutingPublisher(loop, reaper, wanted)

    # Without a keeper: a fork of it would share nothing with other shims.
    entry.run(listener, wanted.namespace, publisher)
    return 0


class ExecutingPublisher(Publisher):
    """Hands events over by the daemon's own executable, for a daemon that gave no ttrpc address."""

    def __init__(self, loop: Loop, reaper: Reaper, wanted: Start) -> None:
        super().__init__(loop, "", wanted.namespace)
        self._reaper = reaper
        self._argv = [wanted.publish_binary or "containerd", "--address", wanted.grpc_address, "publish"]
        self._argv += ["--namespace", wanted.namespace, "--topic"]

    async def _forward(self, event: bytes) -> ttrpc.Response:
        envelope = messages.decode(messages.ForwardRequest, event).envelope
        fd = os.memfd_create("event")
        try:
            os.write(fd, envelope.event.encode())
            os.lseek(fd, 0, os.SEEK_SET)
            pid = spawn([*self._argv, envelope.topic], os.environ, "/", {0: fd})
        finally:
            os.close(fd)
        if await self._reaper.wait(pid, PUBLISH_TIMEOUT):
            return ttrpc.Response(Code.UNAVAILABLE, f"{self._argv[0]} publish failed")
        return ttrpc.Response()
