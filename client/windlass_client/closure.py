"""Which plugins a part of a daemon needs: for processes that start no more than that."""

from __future__ import annotations

from collections.abc import Iterable

from windlass.graph import requirements
from windlass.plugin import Plugin


def closure(wanted: Iterable[Plugin[object]], plugins: Iterable[Plugin[object]]) -> list[Plugin[object]]:
    """Return ``wanted`` and all of ``plugins`` that they require, and these in turn."""
    every, waiting = list(plugins), list(wanted)
    taken: dict[str, Plugin[object]] = {}
    while waiting:
        plugin = waiting.pop()
        if plugin.uri not in taken:
            taken[plugin.uri] = plugin
            waiting += requirements(plugin, every)
    return list(taken.values())
