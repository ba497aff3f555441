"""Which plugins a configuration counts on: without them the daemon does not start."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from windlass.errors import StartError
from windlass.plugin import Record, State


def check(
    records: Sequence[Record], required: Collection[str], configured: Collection[str], mark: Callable[..., object]
) -> None:
    """Raise StartError, a line for each, when plugins that must run do not.

    Those that are ``required`` must start. Those that a file has a block for may be skipped, disabled or not
    installed, and may not fail. ``mark`` returns the file and line of a value.
    """
    found = {record.uri: record for record in records}
    lines = []
    for uri in required:
        if uri not in found:
            lines.append(f"{mark('required_plugins')}: required plugin {uri} is not installed")
        elif found[uri].state != State.OK:
            reason = found[uri].message or "see disabled_plugins"
            lines.append(f"{mark('required_plugins')}: required plugin {uri} is {found[uri].state}: {reason}")
    for uri in configured:
        if uri in found and found[uri].state == State.FAILED and uri not in required:
            reason = f"plugin {uri}, which has a block here, did not start: {found[uri].message}"
            remedy = "mend it, or name it in disabled_plugins"
            lines.append(f"{mark('plugins', uri)}: {reason}; {remedy}")
    if lines:
        raise StartError("\n".join(lines))
