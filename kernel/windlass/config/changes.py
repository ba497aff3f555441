"""What differs between two configurations, key by key."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

from windlass.config.loading import Config

C = TypeVar("C")

SECTIONS = ("debug", "cgroup")
"""Sections of the top level whose keys are compared one by one."""
ELSEWHERE = ("grpc", "ttrpc", "metrics", "plugins", "timeouts", "version", "imports")
"""What is compared as keys of plugins and as durations, and what only says how to read a file."""


def changed(old: object, new: object) -> set[str]:
    """Return the names of the fields in which two instances of a configuration class differ."""
    if type(old) is not type(new) or not dataclasses.is_dataclass(old):
        return set()
    return {each.name for each in dataclasses.fields(old) if getattr(old, each.name) != getattr(new, each.name)}


def outside_of_plugins(old: Config, new: Config) -> Iterator[str]:
    """Yield what differs outside of plugins' blocks, such as ``root`` and ``debug.level``."""
    for key in sorted(changed(old.top, new.top) - set(ELSEWHERE)):
        if key in SECTIONS:
            yield from (f"{key}.{inner}" for inner in sorted(changed(getattr(old.top, key), getattr(new.top, key))))
        else:
            yield key
    for key in sorted(old.timeouts.keys() | new.timeouts.keys()):
        if old.timeouts.get(key) != new.timeouts.get(key):
            yield f"timeouts.{key}"


def of_plugins(old: Config, new: Config) -> Mapping[str, set[str]]:
    """Return the keys that differ of each plugin, those without a difference left out."""
    found = {uri: changed(instance, new.plugins.get(uri)) for uri, instance in sorted(old.plugins.items())}
    return {uri: keys for uri, keys in found.items() if keys}


def with_values(old: C, new: object, keys: Collection[str]) -> C:
    """Return ``old`` with the values that ``new`` has for ``keys``. Raises ValueError where they do not fit."""
    # Any of the two is an instance of a plugin's configuration class: `changed` has found its fields.
    return dataclasses.replace(old, **{key: getattr(new, key) for key in keys})  # type: ignore[type-var]
