"""How plugins are named, and where plugin and runtime find each other."""

from __future__ import annotations

DEFAULT_SOCKET = "/var/run/nri/nri.sock"
SOCKET_VARIABLE = "NRI_PLUGIN_SOCKET"
"""The descriptor of a socket that the runtime hands to a plugin that it starts."""
NAME_VARIABLE = "NRI_PLUGIN_NAME"
INDEX_VARIABLE = "NRI_PLUGIN_IDX"


def check_index(index: str) -> None:
    """Raise InvalidArgument unless ``index`` is two digits."""
    raise NotImplementedError


def check_name(name: str) -> None:
    """Raise InvalidArgument unless ``name`` has characters, all of them of ``a-zA-Z0-9_.+-``."""
    raise NotImplementedError


def split(filename: str) -> tuple[str, str]:
    """Return index and name of a plugin in a file such as ``10-logger``; raises InvalidArgument."""
    raise NotImplementedError
