"""How plugins are named, and where plugin and runtime find each other."""

from __future__ import annotations

import re

from windlass.errors import InvalidArgument

DEFAULT_SOCKET = "/var/run/nri/nri.sock"
SOCKET_VARIABLE = "NRI_PLUGIN_SOCKET"
"""The descriptor of a socket that the runtime hands to a plugin that it starts."""
NAME_VARIABLE = "NRI_PLUGIN_NAME"
INDEX_VARIABLE = "NRI_PLUGIN_IDX"

INDEX = re.compile(r"[0-9]{2}", re.ASCII)
NAME = re.compile(r"[a-zA-Z0-9_.+-]{1,255}")


def check_index(index: str) -> None:
    """Raise InvalidArgument unless ``index`` is two digits."""
    if not INDEX.fullmatch(index):
        raise InvalidArgument(f"plugin index {index[:255]!r} is not two digits")


def check_name(name: str) -> None:
    """Raise InvalidArgument unless ``name`` has 1 to 255 characters, all of them of ``a-zA-Z0-9_.+-``."""
    if not NAME.fullmatch(name):
        raise InvalidArgument(f"plugin name {name[:255]!r} is not 1 to 255 characters of a-z, A-Z, 0-9, _ . + -")


def split(filename: str) -> tuple[str, str]:
    """Return index and name of a plugin in a file such as ``10-logger``; raises InvalidArgument."""
    index, dash, name = filename.partition("-")
    if not dash:
        raise InvalidArgument(f"plugin file {filename!r} is not named INDEX-NAME, such as 10-logger")
    check_index(index)
    check_name(name)
    return index, name
