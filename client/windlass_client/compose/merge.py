"""A later compose file over an earlier one, and a service over the one that it extends."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace

from windlass_client.compose.values import Items, Scalar, Section, Value

REPLACED = {"command", "entrypoint", "test"}
"""Lists that are one thing, so that a later one takes the place of an earlier one."""


def merge(first: Value, later: Value, key: str = "") -> Value:
    """Return what two values for one key are together."""
    if later.tag == "override" or key in REPLACED:
        return later
    if isinstance(first, Section) and isinstance(later, Section):
        return _sections(first, later)
    if isinstance(first, Items) and isinstance(later, Items):
        return replace(later, items=_items(first, later, key))
    if isinstance(later, Scalar) and later.text is None and not isinstance(first, Scalar):
        return first
    return later


def _sections(first: Section, later: Section) -> Section:
    entries = dict(first.entries)
    for key, value in later.entries.items():
        if value.tag == "reset":
            entries.pop(key, None)
        else:
            entries[key] = merge(entries[key], value, key) if key in entries else value
    return replace(later, entries=entries)


def without_resets(value: Section) -> Section:
    """Return a mapping without what `!reset` removes, for a file that is under no other."""
    entries = {
        key: without_resets(each) if isinstance(each, Section) else each
        for key, each in value.entries.items()
        if each.tag != "reset"
    }
    return replace(value, entries=entries)


def _items(first: Items, later: Items, key: str) -> tuple[Value, ...]:
    """Return both lists, each item once; the later of two that are about the same thing takes its place."""
    identity = IDENTITIES.get(key, _whole)
    found: dict[Hashable, Value] = {identity(each): each for each in first.items}
    for each in later.items:
        name = identity(each)
        found[name] = merge(found[name], each) if name in found else each
    return tuple(found.values())


def _whole(value: Value) -> Hashable:
    return value.text if isinstance(value, Scalar) else repr(value)


def _by(*fields: str) -> Callable[[Value], Hashable]:
    def identity(value: Value) -> Hashable:
        if not isinstance(value, Section):
            return _whole(value)
        return tuple(_text(value.entries.get(field)) for field in fields)

    return identity


def _text(value: Value | None) -> str:
    return (value.text or "") if isinstance(value, Scalar) else ""


IDENTITIES: Mapping[str, Callable[[Value], Hashable]] = {
    "ports": _by("host_ip", "target", "published", "protocol"),
    "volumes": _by("target"),
    "env_file": _by("path"),
    "secrets": _by("source"),
    "configs": _by("source"),
}
"""By what two items of a list are about the same thing."""
