"""Serves one installed plugin on a socket of its own, for a containerd that has it in ``[proxy_plugins]``.

The kernel that runs the daemon runs this too: with the plugin, what it requires,
the face of its contract and the listener. Only the metadata store is another one, which
keeps nothing and hands out the plugin as it is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

from windlass import discovery
from windlass.config import loading as config
from windlass.config.loading import WINDLASS, Config, Flags
from windlass.contracts.content import CONTENT, ContentStore, RememberedContent
from windlass.contracts.diff import DIFFER
from windlass.contracts.metadata import METADATA
from windlass.contracts.services import GRPC, SERVER
from windlass.contracts.snapshots import SNAPSHOTTER, Snapshotter
from windlass.discovery import Found
from windlass.errors import FailedPrecondition, InvalidArgument, NotFound, StartError
from windlass.plugin import InitContext, Plugin, PluginType
from windlass.process import daemon, logs
from windlass.process import setup as process
from windlass.process.owners import owners_of
from windlass_client.closure import closure

FACES = {SNAPSHOTTER.uri: "snapshots", CONTENT.uri: "content", DIFFER.uri: "diff"}
"""The service that shows plugins of a type."""
ALWAYS = (f"{GRPC.uri}.healthcheck", f"{GRPC.uri}.version", f"{SERVER.uri}.grpc")


def serve(uri: str, address: str, path: Path | None = None, root: str = "", containerd: str = "") -> int:
    """Serve plugin ``uri`` at the socket ``address`` until a signal comes, and return the exit code.

    ``root`` is where it keeps its files, ``path`` a configuration file, and ``containerd`` the
    socket of the daemon whose blobs a differ works on.
    Raises StartError, InvalidArgument and NotFound for what cannot be served.
    """
    started = time.monotonic()
    address, containerd = os.path.abspath(address), containerd and os.path.abspath(containerd)  # noqa: PTH100 - str
    if len(os.fsencode(address)) > 107:
        raise InvalidArgument(f"address {address} is longer than the 107 bytes that Linux takes; choose a shorter one")
    found = _closure(uri, discovery.discover(), containerd)
    draft = config.read(path, WINDLASS, _flags(uri, address, root))
    settings = draft.settle(found)
    if uri.startswith(f"{DIFFER.uri}."):
        settings = _asking_only(settings, uri)
    logs.set_up(settings.top.debug.level, settings.top.debug.format, owners_of(found))
    lock = process.prepare(settings)
    try:
        return daemon.run_loop(found, settings, started)
    finally:
        os.close(lock)


def _flags(uri: str, address: str, root: str) -> Flags:
    # Not the daemon's own directories: it may be running, and its files are its.
    return Flags(root or f"{WINDLASS.root}/serve/{uri}", f"{WINDLASS.state}/serve/{uri}", address)


def _asking_only(settings: Config, uri: str) -> Config:
    """Return settings by which the differ that is served is the one that is asked."""
    face = f"{GRPC.uri}.{FACES[DIFFER.uri]}"
    # Any: the services' own class.
    block: Any = settings.plugins[face]
    asked = replace(block, default=(uri.removeprefix(f"{DIFFER.uri}."),))
    return replace(settings, plugins={**settings.plugins, face: asked})


def _closure(uri: str, installed: Sequence[Found], containerd: str) -> list[Found]:
    """Return the plugin, all that it requires, and what shows it."""
    by_uri = {entry.uri: entry for entry in installed}
    if uri not in by_uri:
        near = ", ".join(each for each in by_uri if each.rpartition(".")[0] in FACES)
        raise NotFound(f"plugin {uri} is not installed; there are: {near}")
    wanted = by_uri[uri]
    if wanted.plugin is None:
        raise StartError(f"plugin {uri} cannot be loaded: {wanted.error}")
    face = FACES.get(wanted.plugin.type.uri)
    if face is None:
        raise InvalidArgument(f"{uri} is not a snapshotter, content store or differ; other plugins cannot be served")
    # Plugins that require a metadata store get the one that keeps nothing.
    others = [entry.plugin for entry in installed if entry.plugin and entry.plugin.type != METADATA]
    needed = closure([wanted.plugin], others)
    taken = {plugin.uri: by_uri[plugin.uri] for plugin in needed}
    for each in (*ALWAYS, f"{GRPC.uri}.{face}"):
        if each not in by_uri:
            raise StartError(f"plugin {each} is not installed, and {uri} cannot be served without it")
        taken[each] = by_uri[each]
    taken[each] = _unnamed(taken[each])
    bare = _bare(wanted.plugin, containerd)
    return [*taken.values(), Found(bare.uri, wanted.distribution, bare)]


def _unnamed(found: Found) -> Found:
    """Return a face that takes calls without a namespace, as containerd makes them to its proxy plugins."""
    plugin = found.plugin
    if plugin is None:
        return found

    # Any: the services' own class, which the kernel does not know.
    def init(context: InitContext) -> object:
        service: Any = plugin.init(context)
        service.namespace = "default"
        return service

    return replace(found, plugin=replace(plugin, init=init))


def _bare(plugin: Plugin[object], containerd: str) -> Plugin[object]:
    """Return the metadata store that keeps nothing."""

    def init(context: InitContext) -> object:
        # Looked up when it is asked for, since what is served may require a metadata store itself.
        return _Bare(lambda: context.by_id(plugin.type, plugin.id), containerd)

    # of the type by name only: it keeps the part of the contract that a face asks for
    return Plugin(PluginType(METADATA.uri), id="bare", init=init)


class _Bare:
    """What a face asks a metadata store for: one namespace's view of a plugin, which is the plugin itself."""

    def __init__(self, served: Callable[[], object], containerd: str) -> None:
        self._served = served
        self._containerd = containerd

    def snapshotter(self, name: str, namespace: str, lease: str = "") -> Snapshotter:
        return cast(Snapshotter, self._served())  # its type's contract, by the choice of the face

    def content(self, namespace: str, lease: str = "") -> RememberedContent:
        if self._containerd:
            return _remote(self._containerd, namespace)
        served = self._served()
        if not hasattr(served, "writer"):
            raise FailedPrecondition("a differ needs the blobs of a daemon; serve it with --content SOCKET")
        return cast(
            RememberedContent, _Plain(cast(ContentStore, served))
        )  # which it is, but for what __getattr__ passes on

    def collect_from(self, kind: str, store: object) -> None:
        """Nothing is collected here."""


class _Plain:
    """A content store that remembers nothing."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store

    def remembered(self, digest: str, offset: int = 0, length: int = 0) -> tuple[int, bytes] | None:
        return None

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


@cache
def _remote(address: str, namespace: str) -> RememberedContent:
    from windlass_remote.content import RemoteContent
    from windlass_remote.peer import Peer

    return cast(RememberedContent, _Plain(RemoteContent(Peer(address, namespace))))  # as above
