"""What plugins call of the daemon: each is a `windlass_nri.mux.Service`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from google.protobuf.message import DecodeError

from windlass.errors import InvalidArgument, Unimplemented
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri_plugins.peer import Peer

logger = logging.getLogger(__name__)

LEVELS = {
    nri.LogRequest.LEVEL_INFO: logging.INFO,
    nri.LogRequest.LEVEL_WARN: logging.WARNING,
    nri.LogRequest.LEVEL_ERROR: logging.ERROR,
}
LONGEST = 1000
"""Characters of a plugin's message in the log."""
Updates: TypeAlias = Callable[[Peer, nri.UpdateContainersRequest], Awaitable[nri.UpdateContainersResponse]]
"""Makes the changes that a plugin wants without being asked."""


class RuntimeService:
    """Registration, and changes that a plugin wants."""

    name = "nri.pkg.api.v1alpha1.Runtime"

    def __init__(self, peer: Peer, updates: Updates) -> None:
        """Serve ``peer``."""
        self._peer = peer
        self._updates = updates

    async def call(self, method: str, namespace: str, payload: bytes) -> bytes:
        """Answer one call."""
        try:
            if method == "RegisterPlugin":
                self._peer.register(nri.RegisterPluginRequest.FromString(payload))
                return nri.Empty().SerializeToString()
            if method == "UpdateContainers":
                request = nri.UpdateContainersRequest.FromString(payload)
                return (await self._updates(self._peer, request)).SerializeToString()
        except DecodeError as error:
            raise InvalidArgument(f"{method}: the request is damaged: {error}") from error
        raise Unimplemented(f"{self.name} has no method {method[:100]}")


class HostFunctions:
    """The log."""

    name = "nri.pkg.api.v1alpha1.HostFunctions"

    def __init__(self, peer: Peer) -> None:
        """Log for ``peer``."""
        self._peer = peer

    async def call(self, method: str, namespace: str, payload: bytes) -> bytes:
        """Answer one call."""
        if method != "Log":
            raise Unimplemented(f"{self.name} has no method {method[:100]}")
        try:
            request = nri.LogRequest.FromString(payload)
        except DecodeError as error:
            raise InvalidArgument(f"{method}: the request is damaged: {error}") from error
        logger.log(LEVELS.get(request.level, logging.DEBUG), 'plugin "%s": %s', self._peer, request.msg[:LONGEST])
        return nri.Empty().SerializeToString()
