"""The Version service."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from windlass.contracts.rpc import Call
from windlass.marks import quick
from windlass_api.containerd.services.version.v1 import version_pb2 as pb


class Version:
    """``containerd.services.version.v1.Version``."""

    def __init__(self, version: str, revision: str) -> None:
        """Answer with the daemon's version and revision."""
        self._response = pb.VersionResponse(version=version, revision=revision)

    @quick
    async def version(self, request: Empty, call: Call) -> pb.VersionResponse:
        """Say what this daemon is."""
        return self._response
