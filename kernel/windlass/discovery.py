"""Entry points to plugins, and which distribution brings each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points

from stevedore import NamedExtensionManager

from windlass.errors import FailedPrecondition, InvalidArgument, StartError, with_class
from windlass.plugin import Plugin
from windlass.records import dataclass

GROUP = "windlass.plugins"

Listing = Callable[..., Iterable[EntryPoint]]


@dataclass(frozen=True, slots=True)
class Found:
    """An installed plugin: its declaration, or why there is none; neither if it is disabled."""

    uri: str
    distribution: str
    plugin: Plugin[object] | None = None
    error: BaseException | None = None


def installed(entries: Iterable[EntryPoint] | None = None) -> dict[str, str]:
    """Return the URIs of all installed plugins, or of ``entries``, and what brings each; imports none of them.

    Raises StartError when two distributions bring plugins of one URI.
    """
    found: dict[str, str] = {}
    for entry in entry_points(group=GROUP) if entries is None else entries:
        distribution = name_and_version(entry.dist)
        if found.setdefault(entry.name, distribution) != distribution:
            raise StartError(
                f"plugin {entry.name} is brought by {found[entry.name]} and by {distribution}: uninstall one of them"
            )
    return dict(sorted(found.items()))


@cache
def name_and_version(distribution: Distribution | None) -> str:
    """Return name and version, read once for all plugins of a distribution, and without the e-mail parser's cost."""
    if distribution is None:
        return "unknown distribution"
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    fields = dict(line.split(": ", 1) for line in text.partition("\n\n")[0].splitlines() if ": " in line)
    return f"{fields['Name']} {fields['Version']}"


def discover(disabled: Collection[str] = (), listed: Listing = entry_points) -> list[Found]:
    """Import every installed plugin's declaration except those of ``disabled``, which are listed without one.

    ``listed`` returns the entry points of a group, for a caller that has read all groups at once.
    """
    entries: dict[str, list[EntryPoint]] = {}
    for entry in listed(group=GROUP):
        # one distribution may be on the path twice, and is the same twice
        if all(entry.value != other.value for other in entries.setdefault(entry.name, [])):
            entries[entry.name].append(entry)
    distributions = installed(entry for every in entries.values() for entry in every)
    return [
        Found(uri, distribution) if uri in disabled else _found(uri, distribution, entries[uri])
        for uri, distribution in distributions.items()
    ]


def _found(uri: str, distribution: str, entries: Sequence[EntryPoint]) -> Found:
    try:
        return Found(uri, distribution, _declaration(uri, entries))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 -- an import may raise anything; it is its plugin's record
        problem = error if isinstance(error, Exception) else ImportError(f"its import ended with {with_class(error)}")
        return Found(uri, distribution, error=problem)


def _declaration(uri: str, entries: Sequence[EntryPoint]) -> Plugin[object]:
    """Import a plugin's declaration. Raises what is wrong with it."""
    if len(entries) > 1:
        values = " and ".join(entry.value for entry in entries)
        raise InvalidArgument(f"its distribution has two entry points of this name, {values}; remove one")
    plugin: object = _Loader(entries[0])[uri].plugin
    if not isinstance(plugin, Plugin):
        raise InvalidArgument(f"its entry point names a {type(plugin).__name__}, not a Plugin")
    if plugin.uri != uri:
        raise InvalidArgument(f"its declaration calls itself {plugin.uri}")
    if plugin.misfit:
        raise FailedPrecondition(plugin.misfit)
    return plugin


class _Loader(NamedExtensionManager[object]):
    """Loads what is installed now: stevedore's own list comes from files in the user's cache directory.

    Such a file, written by any process, stays true to stevedore while the times of `sys.path` have the same
    first 24 bits, which is up to 128 s after a package was installed anew.
    """

    def __init__(self, entry: EntryPoint) -> None:
        self._entry = entry
        super().__init__(GROUP, names=[entry.name], on_load_failure_callback=_raise)

    def list_entry_points(self) -> list[EntryPoint]:
        return [self._entry]


def _raise(_manager: object, _entry: object, error: BaseException) -> None:
    raise error
