"""Completions of `windlass` for bash, zsh and fish, as click writes them; the command itself says what fits."""

from __future__ import annotations

from collections.abc import Mapping

from click.shell_completion import get_completion_class

PROGRAM = "windlass"


def scripts() -> Mapping[str, str]:
    """Return the script of each shell."""
    return {shell: _script(shell) for shell in ("bash", "zsh", "fish")}


def _script(shell: str) -> str:
    from windlass_client.cli import COMPLETE, windlass

    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(windlass, {}, PROGRAM, COMPLETE)
    # `source` would execute bash for its version first, and a package is made where there may be none
    return made.source_template % made.source_vars()
