"""The directories of plugins: what their ``init`` has made is closed to other users."""

from __future__ import annotations

import contextlib
import stat

from windlass.plugin import InitContext


def close_to_others(context: InitContext) -> None:
    """Make a plugin's directories 0700 that others may read; one with mode 0711 stays, for users that pass through."""
    for directory in (context.root, context.state):
        with contextlib.suppress(FileNotFoundError):
            if directory.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
                directory.chmod(0o700)
