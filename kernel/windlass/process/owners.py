"""Whose code a module is: the log and the watchdog name plugins by it."""

from __future__ import annotations

from collections.abc import Iterable

from windlass.discovery import Found


def owners_of(found: Iterable[Found]) -> dict[str, str]:
    """Return for the first part of each plugin's modules its URI, or its distribution where that brings several."""
    uris: dict[str, set[str]] = {}
    distributions: dict[str, str] = {}
    for entry in found:
        if entry.plugin is not None:
            package = entry.plugin.init.__module__.partition(".")[0]
            uris.setdefault(package, set()).add(entry.uri)
            distributions[package] = entry.distribution
    return {
        package: f"plugin {next(iter(every))}" if len(every) == 1 else f"a plugin of {distributions[package]}"
        for package, every in uris.items()
    }
