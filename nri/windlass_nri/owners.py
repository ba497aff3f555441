"""Which plugin owns which field of which container."""

from __future__ import annotations

from windlass.errors import Unknown
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri


class Conflict(Unknown):
    """Two plugins want to set one field; the message names both and the field."""

    def __init__(self, plugin: str, owner: str, field: str, key: str = "") -> None:
        super().__init__(f'plugins "{plugin}" and "{owner}" both tried to set {field}' + (f" {key}" if key else ""))
        self.plugin = plugin
        self.owner = owner
        self.field = field
        self.key = key


class Owners:
    """The owners of the fields of any number of containers."""

    def claim(self, container: str, field: nri.Field, plugin: str, key: str = "") -> None:
        """Make ``plugin`` the owner of a field, or of one entry of it; raises Conflict."""
        raise NotImplementedError

    def clear(self, container: str, field: nri.Field, plugin: str, key: str = "") -> None:
        """Let ``plugin``, and no other, set anew what it has removed."""
        raise NotImplementedError

    def to_proto(self) -> nri.OwningPlugins:
        """Return all owners, as a validator gets them."""
        raise NotImplementedError
