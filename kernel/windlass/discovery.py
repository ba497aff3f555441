"""Entry points to plugins; the only module that knows how distributions are installed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from stevedore import ExtensionManager, NamedExtensionManager

from windlass.errors import InvalidArgument, StartError, with_class
from windlass.plugin import Plugin

if TYPE_CHECKING:
    from windlass.config.settings import TopLevel

GROUP = "windlass.plugins"
FACTORIES = "windlass.plugin_factories"
"""Entry points of functions that make plugins of what the configuration says: settings to a list of `Plugin`."""

Note = Callable[[ExtensionManager[Any] | None, EntryPoint, BaseException], None]
"""What is told of an entry point that cannot be imported."""

# stevedore logs a stack trace for each plugin that cannot be imported; ours is the record, said once.
logging.getLogger("stevedore").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Found:
    """An installed plugin: its declaration, or why there is none; neither if it is disabled."""

    uri: str
    distribution: str
    # Any: what it provides is of no interest here.
    plugin: Plugin[Any] | None = None
    error: BaseException | None = None


def installed(entries: Collection[EntryPoint] | None = None) -> dict[str, str]:
    """Return the URIs of all installed plugins, or of ``entries``, and what brings each; imports none of them.

    Raises StartError when two distributions bring plugins of one URI.
    """
    found: dict[str, str] = {}
    for entry in entry_points(group=GROUP) if entries is None else entries:
        distribution = _named(entry.dist)
        if entry.name in found and found[entry.name] != distribution:
            raise StartError(
                f"plugin {entry.name} is brought by {found[entry.name]} and by {distribution}: uninstall one of them"
            )
        found[entry.name] = distribution
    return dict(sorted(found.items()))


@cache
def _named(distribution: Distribution | None) -> str:
    """Return name and version, read once for all plugins of a distribution; its e-mail parser is slow."""
    if distribution is None:
        return "unknown distribution"
    fields = distribution.metadata
    return f"{fields['Name']} {fields['Version']}"


def discover(disabled: Collection[str] = ()) -> list[Found]:
    """Import every installed plugin's declaration except those of ``disabled``, which are listed without one."""
    entries = entry_points(group=GROUP)
    distributions = installed(entries)
    problems: dict[str, BaseException] = {}

    # Any, here and below: whatever an entry point names, until it is checked to be a Plugin.
    def note(_: ExtensionManager[Any] | None, entry: EntryPoint, error: BaseException) -> None:
        problems[entry.name] = error

    wanted = [uri for uri in distributions if uri not in disabled]
    loaded = _load(wanted, entries, note)
    return [
        Found(uri, distribution) if uri in disabled else _found(uri, distribution, loaded.get(uri), problems.get(uri))
        for uri, distribution in distributions.items()
    ]


def made(settings: TopLevel, found: Sequence[Found], disabled: Collection[str] = ()) -> list[Found]:
    """Return the plugins that installed factories make of ``settings``, those of ``disabled`` without declaration.

    Raises StartError when one has the URI of a plugin that was ``found``, or a factory cannot be imported or fails.
    """
    taken = {entry.uri: entry.distribution for entry in found}
    plugins: list[Found] = []
    for entry in entry_points(group=FACTORIES):
        distribution = _named(entry.dist)
        try:
            made_here = entry.load()(settings)
        except Exception as error:
            reason = f"{distribution} cannot make the plugins of the configuration: {with_class(error)}"
            raise StartError(f"{reason}; mend it or uninstall it") from error
        for plugin in made_here:
            if plugin.uri in taken:
                raise StartError(f"plugin {plugin.uri} is brought by {taken[plugin.uri]}; give yours another name")
            taken[plugin.uri] = distribution
            plugins.append(Found(plugin.uri, distribution, None if plugin.uri in disabled else plugin))
    return plugins


# Any: as in `discover`.
class _Manager(NamedExtensionManager[Any]):
    """Loads what is installed now: stevedore's own list comes from files in the user's cache directory.

    Such a file, whoever wrote it, stays true to stevedore while the times of `sys.path` have the same
    first 24 bits, which is up to 128 s after a package was installed anew.
    """

    def __init__(self, wanted: Sequence[str], entries: Collection[EntryPoint], note: Note) -> None:
        self._entries = entries
        super().__init__(GROUP, names=wanted, on_load_failure_callback=note)

    def list_entry_points(self) -> list[EntryPoint]:
        return list(self._entries)


# Any: as in `discover`.
def _load(wanted: Sequence[str], entries: Collection[EntryPoint], note: Note) -> dict[str, Any]:
    """Import the entry points of ``wanted``; ``note`` is told of those that cannot be."""
    loaded: dict[str, Any] = {}
    try:
        manager = _Manager(wanted, entries, note)
        return {extension.name: extension.plugin for extension in manager}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 -- an import may raise anything; it is its plugin's record
        # stevedore lets some through; only one by one it shows whose they are
        if len(wanted) == 1:
            problem = ImportError(f"its import ended with {with_class(error)}")
            note(None, EntryPoint(wanted[0], "", GROUP), problem)
            return {}
    for uri in wanted:
        loaded |= _load([uri], entries, note)
    return loaded


def _found(uri: str, distribution: str, plugin: object, problem: BaseException | None) -> Found:
    if problem is not None:
        return Found(uri, distribution, error=problem)
    if not isinstance(plugin, Plugin):
        problem = InvalidArgument(f"its entry point names a {type(plugin).__name__}, not a Plugin")
        return Found(uri, distribution, error=problem)
    if plugin.uri != uri:
        return Found(uri, distribution, error=InvalidArgument(f"its declaration calls itself {plugin.uri}"))
    return Found(uri, distribution, plugin)


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
