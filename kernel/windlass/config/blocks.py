"""Plugins' blocks against the classes of the plugins that are installed.

A key that neither the class nor containerd knows is an error, one that only
containerd knows a warning, a block for a plugin that is not installed a note.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from windlass.config.known import containerd_knows, is_containerds
from windlass.config.toml import Mark, Table
from windlass.config.validate import ERROR, NOTE, WARNING, Problem, Reader, did_you_mean, unknown_is_error
from windlass.discovery import Found
from windlass.errors import with_class

_NEAR = 0.92
"""How alike two URIs must be to suggest one for the other; most of a URI is its type."""


def check_blocks(plugins: Table, found: Sequence[Found]) -> tuple[Mapping[str, object], list[Problem]]:
    """Return an instance of every plugin's class by URI, and the problems."""
    instances: dict[str, object] = {}
    reader = Reader(_unknown)
    installed = {entry.uri: entry.plugin for entry in found}
    for uri, plugin in installed.items():
        if plugin is not None and plugin.config is not None:
            block = plugins.get(uri, Table(Mark("default")))
            try:
                instances[uri] = reader.read(plugin.config, block, ("plugins", uri))
            except Exception as error:  # noqa: BLE001 - the operator gets the plugin's name, and every other problem
                reason = f"plugin {uri} cannot read its settings: {with_class(error)}"
                remedy = "mend it, or name it in disabled_plugins"
                reader.problems.append(Problem(ERROR, block.mark, f"{reason}; {remedy}"))
        elif plugin is not None and plugins.get(uri):
            reader.problems.append(_no_config(uri, plugins[uri]))
    for uri in plugins:
        if uri not in installed and plugins[uri].mark.line:
            reader.problems.append(_not_installed(uri, plugins[uri], list(installed)))
    return instances, reader.problems


def _unknown(path: tuple[str, ...], mark: Mark, choices: Collection[str]) -> Problem:
    uri, key = path[1], path[2]
    if containerd_knows(uri, key):
        return Problem(
            WARNING, mark, f'"{".".join(path[2:])}" of {uri} has no effect: containerd has it, Windlass does not'
        )
    return unknown_is_error((*path[:1], f'"{uri}"', *path[2:]), mark, choices)


def _no_config(uri: str, block: Table) -> Problem:
    key = next(iter(block))
    if containerd_knows(uri, key):
        return Problem(WARNING, block.place(key), f"{uri} has no settings in Windlass: the block has no effect")
    return Problem(ERROR, block.place(key), f'unknown key "{key}": {uri} has no settings')


def _not_installed(uri: str, block: Table, installed: list[str]) -> Problem:
    hint = "" if is_containerds(uri) else did_you_mean(uri, installed, _NEAR)
    if hint:
        return Problem(WARNING, block.mark, f"no plugin {uri} is installed: the block has no effect{hint}")
    return Problem(NOTE, block.mark, f"no plugin {uri} is installed: the block has no effect")


def check_names(tables: Sequence[Table], found: Sequence[Found]) -> list[Problem]:
    """Check that required plugins are installed and enabled, and say which disabled ones are not installed.

    The tables are of version 4.
    """
    installed = [entry.uri for entry in found]
    disabled = {entry.uri for entry in found if entry.plugin is None and entry.error is None}
    problems = []
    for table in tables:
        for uri in table.get("required_plugins", []):
            if "." not in uri:
                continue  # that is reported already
            if uri not in installed:
                reason = f"required plugin {uri} is not installed{did_you_mean(uri, installed, _NEAR)}"
                problems.append(Problem(ERROR, table.place("required_plugins"), reason))
            elif uri in disabled:
                reason = f"required plugin {uri} is disabled; remove it from disabled_plugins or from here"
                problems.append(Problem(ERROR, table.place("required_plugins"), reason))
        for uri in table.get("disabled_plugins", []):
            if uri not in installed:
                reason = f"disabled plugin {uri} is not installed{did_you_mean(uri, installed, _NEAR)}"
                problems.append(Problem(NOTE, table.place("disabled_plugins"), reason))
    return problems
