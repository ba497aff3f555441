"""Which plugin owns which field of which container."""

from __future__ import annotations

from windlass.errors import Unknown
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri

CLEARED = "-"
"""Precedes the name of a plugin that has removed a field: only this plugin may set it anew."""


class Conflict(Unknown):
    """Two plugins want to set one field; the message names both and the field."""

    def __init__(self, plugin: str, owner: str, field: str, key: str | None = None) -> None:
        super().__init__(f'plugins "{plugin}" and "{owner}" both tried to set {field}' + (f" {key}" if key else ""))
        self.plugin = plugin
        self.owner = owner
        self.field = field
        self.key = key


class Owners:
    """The owners of the fields of any number of containers.

    A simple field has one owner, a compound one an owner for each of its entries, by their keys.
    """

    def __init__(self) -> None:
        self._owners: dict[str, dict[tuple[nri.Field.ValueType, str | None], str]] = {}

    def claim(self, container: str, field: nri.Field.ValueType, plugin: str, key: str | None = None) -> None:
        """Make ``plugin`` the owner of a field, or of one entry of it; raises Conflict."""
        owned = self._owners.setdefault(container, {})
        owner = owned.get((field, key))
        if owner is not None and owner != CLEARED + plugin:
            raise Conflict(plugin, owner.removeprefix(CLEARED), nri.Field.Name(field), key)
        owned[field, key] = plugin

    def clear(self, container: str, field: nri.Field.ValueType, plugin: str, key: str | None = None) -> None:
        """Let ``plugin``, and no other, set anew what it has removed."""
        self._owners.setdefault(container, {})[field, key] = CLEARED + plugin

    def share(self, container: str, field: nri.Field.ValueType, plugin: str) -> None:
        """Make ``plugin`` one more owner of a field to which all may add."""
        owned = self._owners.setdefault(container, {})
        owner = owned.get((field, None))
        owned[field, None] = plugin if owner is None else f"{owner},{plugin}"

    def to_proto(self) -> nri.OwningPlugins:
        """Return all owners, as a validator gets them."""
        owning = nri.OwningPlugins()
        for container, owned in self._owners.items():
            fields = owning.owners[container]
            for (field, key), plugin in owned.items():
                if key is None:
                    fields.simple[field] = plugin
                else:
                    fields.compound[field].owners[key] = plugin
        return owning
