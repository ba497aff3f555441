"""Services that extend another one, of their file or of another file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from windlass_client.compose import keys
from windlass_client.compose.fields import text
from windlass_client.compose.merge import merge
from windlass_client.compose.values import Items, Scalar, Section, Value, check_keys, section, wrong

Load = Callable[[Path], Section]
"""Reads a file: its variables are replaced and its services are in their long form."""


@dataclass(frozen=True)
class Extender:
    """Puts services over what they extend."""

    load: Load

    def all_of(self, file: Path, document: Section) -> Section:
        """Return a file whose services extend nothing any more. Raises InvalidArgument, NotFound."""
        services = section(document.entries["services"], "services") if "services" in document.entries else None
        if services is None:
            return document
        found = {name: self._service(file, services, name, ()) for name in services.entries}
        return replace(document, entries={**document.entries, "services": replace(services, entries=found)})

    def _service(self, file: Path, services: Section, name: str, chain: tuple[tuple[Path, str], ...]) -> Value:
        service = services.entries[name]
        if not isinstance(service, Section) or "extends" not in service.entries:
            return service
        path = f"services.{name}.extends"
        extends = section(service.entries["extends"], path)
        check_keys(extends, path, keys.EXTENDS, {})
        if (file, name) in chain:
            names = " -> ".join(each for _, each in (*chain, (file, name)))
            raise wrong(extends, path, f"services extend each other: {names}; remove one extends")
        base = self._base(file, services, extends, path, (*chain, (file, name)))
        own = replace(service, entries={key: each for key, each in service.entries.items() if key != "extends"})
        return merge(base, own)

    def _base(
        self, file: Path, services: Section, extends: Section, path: str, chain: tuple[tuple[Path, str], ...]
    ) -> Value:
        if "service" not in extends.entries:
            raise wrong(extends, path, "needs the name of a service; name it under service")
        name = text(extends.entries["service"], f"{path}.service")
        other = file
        if "file" in extends.entries:
            other = file.parent / text(extends.entries["file"], f"{path}.file")
            services = section(self.load(other).entries.get("services", Scalar(None, extends.at)), "services")
        if name not in services.entries:
            raise wrong(extends, path, f"{other} has no service {name[:80]!r}; it has {', '.join(services.entries)}")
        base = self._service(other, services, name, chain)
        return base if other == file or not isinstance(base, Section) else self._relocated(base, other.parent)

    def _relocated(self, service: Section, directory: Path) -> Section:
        """Return a service of another file with its paths as they are from the project's directory."""
        entries = dict(service.entries)
        for key, field in (("volumes", "source"), ("env_file", "path")):
            found = entries.get(key)
            if isinstance(found, Items):
                entries[key] = replace(found, items=tuple(self._moved(each, field, directory) for each in found.items))
        if "build" in entries:
            build = entries["build"]
            entries["build"] = (
                self._path(build, directory) if isinstance(build, Scalar) else self._moved(build, "context", directory)
            )
        return replace(service, entries=entries)

    def _moved(self, value: Value, field: str, directory: Path) -> Value:
        if not isinstance(value, Section) or not isinstance(path := value.entries.get(field), Scalar):
            return value
        kind = value.entries.get("type")
        if isinstance(kind, Scalar) and kind.text != "bind":
            return value
        return replace(value, entries={**value.entries, field: self._path(path, directory)})

    def _path(self, value: Scalar, directory: Path) -> Scalar:
        if not value.text or value.text.startswith(("/", "~")):
            return value
        return replace(value, text=os.path.normpath(directory / value.text))
