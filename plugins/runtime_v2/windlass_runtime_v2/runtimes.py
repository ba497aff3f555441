"""From a runtime's name to the executable of its shim (reference 4.1)."""

from __future__ import annotations

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
                raise Error(f"invalid custom binary path: {runtime} is not a file")
            return runtime
        name = binary_name(runtime)
        if name not in self._found:
            self._found[name] = _search(runtime, name)
        return self._found[name]


def binary_name(runtime: str) -> str:
    """Return the shim's file name: the last two components of ``a.b.<name>.<version>``."""
    parts = runtime.split(".")
    if "/" in runtime or "\0" in runtime or len(parts) < 2 or not parts[0] or not parts[-1] or not parts[-2]:
        raise Error(f"invalid runtime name {runtime!r}: it is neither like io.containerd.runc.v2 nor an absolute path")
    return f"containerd-shim-{parts[-2]}-{parts[-1]}"


def _search(runtime: str, name: str) -> str:
    # Absolute ones alone: where the daemon was started is no place to execute programs from as root.
    places = [place for place in os.environ.get("PATH", os.defpath).split(os.pathsep) if place.startswith("/")]
    if Path(sys.argv[0]).is_file():
        places.append(str(Path(sys.argv[0]).absolute().parent))
    for place in places:
        candidate = Path(place, name)
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    raise Error(f"runtime {runtime}: binary {name} is not installed; looked in {':'.join(places)}")
