"""Connects what the configuration says of a plugin behind a socket with the contract that it is to keep."""

from __future__ import annotations

from urllib.parse import unquote

from windlass.config.settings import ProxyPlugin
from windlass.contracts.content import ContentStore
from windlass.contracts.diff import Differ
from windlass.contracts.sandboxes import SandboxController
from windlass.contracts.snapshots import Snapshotter
from windlass.contracts.values import host_architecture
from windlass.errors import InvalidArgument
from windlass.plugin import InitContext
from windlass_remote.content import RemoteContent
from windlass_remote.diff import RemoteDiffer
from windlass_remote.peer import Peer
from windlass_remote.sandboxes import RemoteSandboxController
from windlass_remote.snapshots import RemoteSnapshotter

Proxied = Snapshotter | ContentStore | Differ | SandboxController


def connect(name: str, proxy: ProxyPlugin, context: InitContext) -> Proxied:
    """Return the object for an entry, and publish what the entry says of it (docs/containerd 1.3, proxy_plugins)."""
    path = proxy.address if proxy.address.startswith("/") else unquote(proxy.address.removeprefix("unix://"))
    if not path.startswith("/"):
        raise InvalidArgument(
            f"address {proxy.address!r} of proxy plugin {name} is not an absolute path; name its socket"
        )
    context.meta.exports.update({**proxy.exports, "address": proxy.address})
    context.meta.capabilities.extend(proxy.capabilities)
    context.meta.platforms.append(_platform(proxy.platform))
    if proxy.type == "sandbox":
        controller = RemoteSandboxController(path, name, described=f"proxy plugin {name}")
        context.on_stop(controller.close)
        return controller
    peer = Peer(path, name=f"proxy plugin {name}")
    context.on_stop(peer.close)
    if proxy.type == "content":
        return RemoteContent(peer)
    return RemoteDiffer(peer) if proxy.type == "diff" else RemoteSnapshotter(peer, name)


def _platform(text: str) -> tuple[str, str, str]:
    """Return a platform, ``os/architecture/variant``; the host's where it says nothing."""
    os, _, rest = text.partition("/")
    architecture, _, variant = rest.partition("/")
    return os or "linux", architecture or host_architecture(), variant
