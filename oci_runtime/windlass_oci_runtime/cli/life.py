"""Commands that start, signal, pause and remove containers."""

from __future__ import annotations

import signal
import time

from windlass.errors import NotFound
from windlass_oci_runtime import cgroups, ending
from windlass_oci_runtime.cli.options import Options, Usage
from windlass_oci_runtime.state import Container


def start_command(root: str, options: Options) -> None:
    """Let init go on."""
    ending.start(Container(root, options.operands[0]))


def kill_command(root: str, options: Options) -> None:
    """Send a signal, SIGTERM if none is named."""
    container = Container(root, options.operands[0])
    ending.kill(container, number(options.operands[1] if len(options.operands) > 1 else "TERM"), options.has("all"))


def number(text: str) -> int:
    """Return the number of a signal by its name, with or without SIG, or its number. Raises Usage."""
    if text.isdecimal():
        return int(text)
    name = text.upper().removeprefix("SIG")
    found = getattr(signal, f"SIG{name}", None)
    if not isinstance(found, signal.Signals):
        raise Usage(f"unknown signal {text!r}")
    return int(found)


def delete_command(root: str, options: Options) -> None:
    """Remove a container that has stopped; by force in any state, and one that is not there is fine."""
    container = Container(root, options.operands[0])
    try:
        ending.delete(container, options.has("force"))
    except NotFound:
        if not options.has("force"):
            raise
        container.remove()


def pause_command(root: str, options: Options) -> None:
    """Make all processes stand still."""
    _pause(root, options, frozen=True)


def resume_command(root: str, options: Options) -> None:
    """Let all processes go on."""
    _pause(root, options, frozen=False)


def _pause(root: str, options: Options, frozen: bool) -> None:
    from windlass_oci_runtime import changing

    for _ in changing.pausing(Container(root, options.operands[0]), frozen):
        time.sleep(cgroups.PAUSE)
