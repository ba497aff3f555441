"""What the daemon's servers take: a service's descriptor and the object that answers."""

from __future__ import annotations

from importlib import import_module

from windlass.contracts import rpc


class GrpcService:
    """A `windlass.contracts.services.Service` made of a wire service and an object with its methods.

    An object that lacks a method leaves it UNIMPLEMENTED; ``object()`` leaves all so.
    """

    def __init__(self, module: str, name: str, implementation: object) -> None:
        """Serve ``name`` of the generated module ``windlass_api.<module>``."""
        self._descriptor = import_module(f"windlass_api.{module}").DESCRIPTOR.services_by_name[name]
        self.implementation = implementation
        self.namespace = ""
        """That of calls that name none."""

    @property
    def name(self) -> str:
        """The full name on the wire."""
        return str(self._descriptor.full_name)

    @property
    def methods(self) -> dict[str, bool]:
        """Every RPC of the service, and whether it is served."""
        return {each.name: rpc.is_implemented(self.implementation, each.name) for each in self._descriptor.methods}

    def register(self, server: rpc.Server) -> None:
        """Add the service to a server."""
        rpc.serve(server, self._descriptor, self.implementation, self.namespace)
