"""Makes one plugin of each entry of ``[proxy_plugins]``."""

from __future__ import annotations

from functools import partial

from windlass.config.settings import ProxyPlugin, TopLevel
from windlass.contracts.content import CONTENT
from windlass.contracts.diff import DIFFER
from windlass.contracts.sandboxes import SANDBOX_CONTROLLER
from windlass.contracts.snapshots import SNAPSHOTTER
from windlass.plugin import InitContext, Plugin, PluginType

TYPES: dict[str, PluginType[object]] = {
    "snapshot": SNAPSHOTTER,
    "snapshotter": SNAPSHOTTER,
    "content": CONTENT,
    "diff": DIFFER,
    "sandbox": SANDBOX_CONTROLLER,
}


def init(name: str, proxy: ProxyPlugin, context: InitContext) -> object:
    """Prepare the connection; the peer need not be there yet."""
    from windlass_proxy import proxies

    return proxies.connect(name, proxy, context)


def plugins(settings: TopLevel) -> list[Plugin[object]]:
    """Return a plugin for each entry, its ID the entry's name."""
    return [
        Plugin(TYPES[proxy.type], id=name, init=partial(init, name, proxy))
        for name, proxy in settings.proxy_plugins.items()
    ]
