"""Sockets that systemd has made for the daemon (sd_listen_fds(3)): they listen before it starts and after it stops."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from pathlib import Path

FIRST = 3
"""The number of the first descriptor that is passed."""


def inherit(environment: MutableMapping[str, str]) -> dict[Path, socket.socket]:
    """Return the unix sockets that were passed to this process, by their paths; those of other families are left.

    They, and what the environment says of them, are not passed on to programs that this one executes.
    """
    said = {key: environment.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if said["LISTEN_PID"] != str(os.getpid()) or not said["LISTEN_FDS"].isdecimal():
        return {}
    found = {}
    for descriptor in range(FIRST, FIRST + int(said["LISTEN_FDS"])):
        os.set_inheritable(descriptor, False)
        if address := _listens_at(descriptor):
            found[address] = socket.socket(fileno=descriptor)
    return found


def _listens_at(descriptor: int) -> Path | None:
    """Return the path of a unix socket that takes connections, without owning it."""
    with socket.socket(fileno=os.dup(descriptor)) as each:
        if each.family != socket.AF_UNIX or not each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return None
        address = each.getsockname()
    return Path(address) if isinstance(address, str) and address.startswith("/") else None


class Inherited:
    """The sockets of this process, until servers take them."""

    def __init__(self) -> None:
        """Look at the environment when the first server asks."""
        self._sockets: dict[Path, socket.socket] | None = None

    def take(self, path: Path) -> socket.socket | None:
        """Return the socket that listens at ``path``, which the caller owns then; None if there is none."""
        if self._sockets is None:
            self._sockets = inherit(os.environ)
        return self._sockets.pop(path, None)

    def close_rest(self) -> list[Path]:
        """Close what no server has taken, so that its clients do not wait for ever, and return the paths."""
        left, self._sockets = self._sockets or {}, {}
        for each in left.values():
            each.close()
        return sorted(left)


inherited = Inherited()
