"""The plugin's side: connects a Python object to a runtime as an NRI plugin."""

from __future__ import annotations

from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri


class Stub:
    """One plugin's connection to a runtime."""

    def __init__(self, plugin: object, name: str, index: str) -> None:
        """Subscribe to the events for which ``plugin`` has methods."""
        raise NotImplementedError

    async def run(self, socket: str = "") -> None:
        """Serve until the runtime ends the connection; ``socket`` or the descriptor that the runtime handed over."""
        raise NotImplementedError

    async def update_containers(
        self, updates: list[nri.ContainerUpdate], evictions: list[nri.ContainerEviction]
    ) -> list[nri.ContainerUpdate]:
        """Ask the runtime for updates that no event caused; returns those that failed."""
        raise NotImplementedError
