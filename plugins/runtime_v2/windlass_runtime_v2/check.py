"""Looks for bundles, and mounts in them, that belong to no container, for `windlass fsck`."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from windlass import mounting
from windlass.checks import Problem
from windlass.errors import Error, NotFound
from windlass.metadata import Metadata
from windlass_runtime_v2.bundles import Bundle, Bundles, sweep

CONNECT_TIMEOUT = 1.0


class BundleCheck:
    """A `windlass.checks.Checked`; what has a shim that lives is the daemon's business when it starts."""

    def __init__(self, bundles: Bundles, metadata: Metadata) -> None:
        self._bundles = bundles
        self._metadata = metadata

    def check(self, repair: bool = False, deep: bool = False) -> list[Problem]:
        """See the contract."""
        return list(self._strays(repair))

    def _strays(self, repair: bool) -> Iterator[Problem]:
        for bundle in list(self._bundles.walk()):
            if self._is_known(bundle):
                continue
            mounts = len(mounting.mounts_below(bundle.path))
            held = f" and holds {mounts} mounts" if mounts else ""
            what, state = f"bundle {bundle.path}", f"belongs to no container{held}"
            if _has_shim(bundle):
                yield Problem(what, f"{state}, and its shim runs", "start windlassd, which ends it")
            elif not repair:
                yield Problem(what, state, "run with --repair, or start windlassd, to have it removed")
            else:
                sweep(self._bundles.hide(bundle))
                yield Problem(what, state, "it was removed", repaired=True)

    def _is_known(self, bundle: Bundle) -> bool:
        try:
            self._metadata.containers(bundle.namespace).get(bundle.id)
        except NotFound:
            return False
        return True


def _has_shim(bundle: Bundle) -> bool:
    """Tell whether somebody listens where the bundle's shim would."""
    try:
        address = bundle.read_bootstrap().address.removeprefix("unix://")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(CONNECT_TIMEOUT)
            peer.connect(address)
    except (Error, OSError, ValueError):
        return False
    return True
