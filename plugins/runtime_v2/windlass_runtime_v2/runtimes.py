"""From a runtime's name to the executable of its shim (docs/containerd 4.1)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from windlass.errors import Error

# Plain errors, here: over RPC the code is UNKNOWN, which is what clients of containerd get.


class Executables:
    """Finds shim binaries; what was found once is kept for the daemon's life."""

    def __init__(self) -> None:
        """Look for nothing yet."""
        self._found: dict[str, str] = {}

    def resolve(self, runtime: str) -> str:
        """Return the absolute path of the shim that serves ``runtime``.

        Raises Error, saying which binary was looked for and where.
        """
        if not runtime:
            raise Error("container names no runtime; set one such as io.containerd.runc.v2")
        if runtime.startswith("/"):
            if not Path(runtime).is_file():
                raise Error(f"invalid custom binary path: {json.dumps(runtime)} is not a file")
            return runtime
        name = binary_name(runtime)
        if name not in self._found:
            self._found[name] = _search(runtime, name)
        return self._found[name]


def binary_name(runtime: str) -> str:
    """Return the shim's file name: the last two components of ``a.b.<name>.<version>``."""
    parts = runtime.split(".")
    if "/" in runtime or "\0" in runtime or len(parts) < 2 or not parts[0] or not parts[-1] or not parts[-2]:
        raise Error(
            f"invalid runtime name {json.dumps(runtime)}: it is neither like io.containerd.runc.v2 nor an absolute path"
        )
    return f"containerd-shim-{parts[-2]}-{parts[-1]}"


def find_program(name: str) -> str:
    """Return the absolute path of an executable in PATH or next to the daemon's own, "" when it is not installed."""
    for place in _places():
        candidate = Path(place, name)
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    return ""


def _places() -> list[str]:
    # Absolute ones only: what lies where the daemon happens to be started was not chosen.
    places = [place for place in os.environ.get("PATH", os.defpath).split(os.pathsep) if place.startswith("/")]
    own = Path(sys.argv[0]).absolute()
    return [*places, str(own.parent)] if own.is_file() else places


def _search(runtime: str, name: str) -> str:
    found = find_program(name)
    if not found:
        looked = ":".join(_places())
        raise Error(f"runtime {json.dumps(runtime)}: binary {json.dumps(name)} is not installed; looked in {looked}")
    return found
