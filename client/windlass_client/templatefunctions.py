"""The functions of templates, and how values are written and tested there (Go's text/template, docker's additions)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from windlass.errors import InvalidArgument
from windlass_client.output import json_text

Value = object
"""What a template is about: what JSON has."""


def text_of(value: Value) -> str:
    """Return a value as Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{text_of(each)}" for key, each in sorted(value.items())) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(map(text_of, value)) + "]"
    return str(value)


def is_true(value: Value) -> bool:
    """Return whether a value is not empty."""
    return bool(value)


def _index(value: Value, *keys: Value) -> Value:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, "")
        elif isinstance(value, (list, tuple, str)) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        else:
            raise InvalidArgument(f"template index {text_of(key)} is not in {text_of(value)[:60]}")
    return value


def _sized(value: Value) -> int:
    if isinstance(value, (str, Mapping, Sequence)):
        return len(value)
    raise InvalidArgument(f"template asks for the length of {text_of(value)[:40]}")


def _listed(value: Value) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [text_of(each) for each in value]
    raise InvalidArgument(f"template joins {text_of(value)[:40]}, which is not a list")


def _printf(form: Value, *values: Value) -> str:
    pieces = str(form).replace("%v", "%s").replace("%q", '"%s"')
    filled = [each if isinstance(each, int) and not isinstance(each, bool) else text_of(each) for each in values]
    return pieces % tuple(filled)


def _compare(test: Callable[[Value, Value], bool]) -> Callable[..., Value]:
    return lambda first, *others: any(test(first, other) for other in others)


def _all(*values: Value) -> Value:
    return next((value for value in values if not is_true(value)), values[-1])


def _any(*values: Value) -> Value:
    return next((value for value in values if is_true(value)), values[-1])


FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "json": json_text,
    "index": _index,
    "len": _sized,
    "join": lambda values, separator: str(separator).join(_listed(values)),
    "split": lambda text, separator: text_of(text).split(str(separator)),
    "lower": lambda text: text_of(text).lower(),
    "upper": lambda text: text_of(text).upper(),
    "title": lambda text: text_of(text).title(),
    "print": lambda *values: "".join(map(text_of, values)),
    "println": lambda *values: " ".join(map(text_of, values)) + "\n",
    "printf": _printf,
    "eq": _compare(lambda one, other: one == other),
    "ne": lambda one, other: one != other,
    "lt": lambda one, other: one < other,
    "gt": lambda one, other: one > other,
    "not": lambda value: not is_true(value),
    "and": _all,
    "or": _any,
}
