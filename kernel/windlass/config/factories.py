"""Plugins that are made of what the configuration says, such as those behind sockets."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib.metadata import entry_points

from windlass.config.settings import TopLevel
from windlass.discovery import Found, Listing, name_and_version
from windlass.errors import StartError, with_class

FACTORIES = "windlass.plugin_factories"
"""Entry points of functions that make plugins of what the configuration says: settings to a list of `Plugin`."""


def made(
    settings: TopLevel, found: Sequence[Found], disabled: Collection[str] = (), listed: Listing = entry_points
) -> list[Found]:
    """Return the plugins that installed factories make of ``settings``, those of ``disabled`` without declaration.

    ``listed`` is as for `windlass.discovery.discover`.

    Raises StartError when one has the URI of a plugin that was ``found``, or a factory cannot be imported or fails.
    """
    taken = {entry.uri: entry.distribution for entry in found}
    plugins: list[Found] = []
    for entry in listed(group=FACTORIES):
        distribution = name_and_version(entry.dist)
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
