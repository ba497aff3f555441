"""Plugins to a start order: pure, and the same for the same plugins every time."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

from windlass.errors import StartError
from windlass.plugin import ALL, Plugin


def requirements(plugin: Plugin[object], plugins: Iterable[Plugin[object]]) -> list[Plugin[object]]:
    """Return those of ``plugins`` that must start before ``plugin``."""
    if ALL in plugin.requires:
        return [other for other in plugins if other is not plugin and ALL not in other.requires]
    return [other for other in plugins if other.type in plugin.requires]


def start_order(plugins: Iterable[Plugin[object]]) -> list[Plugin[object]]:
    """Return ``plugins`` with requirements first, in the same order whatever the order they came in.

    A required type without a plugin is not an error here: the lookup in ``init``
    says so. Raises StartError for a loop, naming every plugin in it.
    """
    by_uri = {plugin.uri: plugin for plugin in sorted(plugins, key=lambda plugin: plugin.uri)}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for uri, plugin in by_uri.items():
        sorter.add(uri, *(other.uri for other in requirements(plugin, by_uri.values())))
    try:
        return [by_uri[uri] for uri in sorter.static_order()]
    except CycleError as error:
        # graphlib lists a loop from requirement to dependant; we read it the other way round
        raise StartError(f"plugins require each other: {' -> '.join(reversed(error.args[1]))}") from None
