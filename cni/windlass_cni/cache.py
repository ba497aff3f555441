"""Cached results: what CHECK, DEL and GC need of an attachment, in libcni's own format and directory.

A file for each network, container and interface. It has the network's configuration as it was at ADD, so that DEL
undoes what was done, although somebody may have changed or removed the file since.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import Error
from windlass_cni.config import Json, Network, Object, parse
from windlass_cni.protocol import Attachment

KIND = "cniCacheV1"
DIRECTORY = Path("/var/lib/cni/results")
LIMIT = 8 << 20


@dataclass(frozen=True, slots=True)
class Cached:
    """An attachment that ADD has made, or may have begun to make: then ``result`` is None."""

    network: Network
    attachment: Attachment
    capability_args: Object
    result: Object | None


class Cache:
    """The files. Synchronous; each call reads or writes one small file, or lists them."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        """Use a directory, which is made when the first result is kept."""
        self._directory = directory

    def _path(self, network: str, container: str, interface: str) -> Path:
        return self._directory / f"{network}-{container}-{interface}"

    def keep(self, cached: Cached) -> None:
        """Write an attachment; it replaces an earlier one of the same names. Raises OSError."""
        attachment = cached.attachment
        document = {
            "kind": KIND,
            "containerId": attachment.container,
            "config": base64.b64encode(cached.network.source.encode()).decode(),
            "ifName": attachment.interface,
            "networkName": cached.network.name,
            "netns": attachment.netns,
            "cniArgs": [list(pair) for pair in attachment.args],
            "capabilityArgs": cached.capability_args,
            "result": cached.result,
        }
        path = self._path(cached.network.name, attachment.container, attachment.interface)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(document))
            temporary.chmod(0o600)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def get(self, network: str, container: str, interface: str) -> Cached | None:
        """Return what is kept of an attachment; None without, and for a file that is none of ours or libcni's."""
        return _read(self._path(network, container, interface))

    def drop(self, network: str, container: str, interface: str) -> None:
        """Forget an attachment; one that is not there is not an error."""
        self._path(network, container, interface).unlink(missing_ok=True)

    def all(self) -> Iterator[Cached]:
        """Yield every attachment that is kept, of whatever program."""
        return self._those("")

    def of_container(self, container: str) -> list[Cached]:
        """Return the attachments of a container, in the order of their interfaces' names."""
        # A node with many pods has many files; only those that may be the container's are read.
        found = [each for each in self._those(f"-{container}-") if each.attachment.container == container]
        return sorted(found, key=lambda each: each.attachment.interface)

    def _those(self, part: str) -> Iterator[Cached]:
        """Yield what is kept in files with ``part`` in their names."""
        try:
            names = sorted(path.name for path in self._directory.iterdir() if part in path.name)
        except FileNotFoundError:
            return
        for name in names:
            if not name.startswith(".") and (cached := _read(self._directory / name)) is not None:
                yield cached


def _read(path: Path) -> Cached | None:
    with suppress(OSError, ValueError, RecursionError, Error):
        with path.open("rb") as file:
            document: Json = json.loads(file.read(LIMIT))
        if isinstance(document, Mapping) and document.get("kind") == KIND:
            return _cached(document)
    return None


def _cached(document: Object) -> Cached:
    result, args, capabilities = (document.get(key) for key in ("result", "cniArgs", "capabilityArgs"))
    pairs = [pair for pair in args if isinstance(pair, list) and len(pair) == 2] if isinstance(args, list) else []
    return Cached(
        network=parse(base64.b64decode(str(document.get("config", ""))).decode()),
        attachment=Attachment(
            container=str(document.get("containerId", "")),
            netns=str(document.get("netns") or ""),
            interface=str(document.get("ifName", "")),
            args=tuple((str(key), str(value)) for key, value in pairs),
        ),
        capability_args=capabilities if isinstance(capabilities, Mapping) else {},
        result=result if isinstance(result, Mapping) else None,
    )
