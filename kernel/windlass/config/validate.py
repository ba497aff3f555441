"""TOML tables to frozen dataclasses, every problem found with its file and line.

A class's fields are the keys. Fields may be ``bool``, ``int``, ``float``, ``str``,
``Path``, an ``Enum`` or ``Literal`` of those, another dataclass, lists and tuples,
``dict[str, …]``, and unions such as ``str | None``. What a class cannot say by
types it says by raising ValueError in ``__post_init__``.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from windlass.config.effects import has_no_effect
from windlass.config.toml import Mark, Table
from windlass.errors import StartError

ERROR = "error"
WARNING = "warning"
NOTE = "note"

C = TypeVar("C")


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Something about the configuration that the operator should know."""

    severity: str
    mark: Mark
    message: str

    def __str__(self) -> str:
        return f"{self.mark}: {self.message}"


class ConfigError(StartError):
    """The configuration cannot be used; ``problems`` holds every reason, its text one line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Take the problems that are errors."""
        self.problems = tuple(problem for problem in problems if problem.severity == ERROR)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def raise_errors(problems: Sequence[Problem]) -> None:
    """Raise ConfigError if any of the problems is an error."""
    if any(problem.severity == ERROR for problem in problems):
        raise ConfigError(problems)


def did_you_mean(key: str, choices: Collection[str], cutoff: float = 0.6) -> str:
    """Return ``; did you mean "x"?`` for the choice that is nearest, or nothing."""
    import difflib  # for mistakes alone

    near = difflib.get_close_matches(key.lower(), {choice.lower(): choice for choice in choices}, n=1, cutoff=cutoff)
    found = [choice for choice in choices if near and choice.lower() == near[0]]
    return f'; did you mean "{found[0]}"?' if found else ""


Unknown = Callable[[tuple[str, ...], Mark, Collection[str]], Problem]
"""What an unknown key is: given its path, its place and the keys that there are."""


def unknown_is_error(path: tuple[str, ...], mark: Mark, choices: Collection[str]) -> Problem:
    """Call every unknown key an error."""
    hint = did_you_mean(path[-1], choices) or f"; known here: {', '.join(sorted(choices)) or 'none'}"
    return Problem(ERROR, mark, f'unknown key "{path[-1]}"{_inside(path[:-1])}{hint}')


def _inside(path: tuple[str, ...]) -> str:
    return f" in [{'.'.join(path)}]" if path else ""


def fields(kind: type[object]) -> dict[str, object]:
    """Return a dataclass's keys and their types."""
    hints = typing.get_type_hints(kind)
    # mypy cannot know that a plugin's configuration class is a dataclass
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type] # see above


class Reader:
    """Reads tables into classes and keeps the problems it finds."""

    def __init__(self, unknown: Unknown = unknown_is_error) -> None:
        """Judge keys that a class does not have by ``unknown``."""
        self.problems: list[Problem] = []
        self._unknown = unknown

    def read(self, kind: type[C], table: Table, path: tuple[str, ...] = ()) -> C | None:
        """Return an instance of the dataclass, or None when the table has errors in it."""
        before = len(self.problems)
        known = fields(kind)
        values = {}
        for key, value in table.items():
            if key in known:
                values[key] = self.value(known[key], value, (*path, key), table.place(key))
            else:
                self.problems.append(self._unknown((*path, key), table.place(key), known))
        for field in dataclasses.fields(kind):  # type: ignore[arg-type] # as in `fields`
            if field.name in known and field.name not in values and not _has_default(field):
                self._wrong((*path, field.name), table.mark, "is missing")
            elif field.name in values and has_no_effect(field, values[field.name]):
                self.problems.append(self._unknown((*path, field.name), table.place(field.name), known))
        if any(problem.severity == ERROR for problem in self.problems[before:]):
            return None
        try:
            return kind(**values)
        except ValueError as error:
            self.problems.append(Problem(ERROR, table.mark, f"{_inside(path).removeprefix(' in ')} {error}".strip()))
            return None

    def value(self, kind: object, value: object, path: tuple[str, ...], mark: Mark) -> object:
        """Return ``value`` as ``kind``; what it returns after a problem is not used."""
        origin = typing.get_origin(kind)
        arguments = typing.get_args(kind)
        if kind is Any or kind is object:
            return value
        if origin in (typing.Union, types.UnionType):
            return self._union(arguments, value, path, mark)
        if origin is typing.Literal:
            return value if value in arguments else self._choices(arguments, value, path, mark)
        if origin in (list, tuple, Sequence, frozenset):
            return self._list(list if origin is Sequence else origin, arguments[0], value, path, mark)
        if origin in (dict, Mapping):
            return self._dict(arguments[1], value, path, mark)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            return (
                self.read(kind, value, path) if isinstance(value, Table) else self._type("a table", value, path, mark)
            )
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            choices = [member.value for member in kind]
            return kind(value) if value in choices else self._choices(choices, value, path, mark)
        return self._scalar(kind, value, path, mark)

    def _scalar(self, kind: object, value: object, path: tuple[str, ...], mark: Mark) -> object:
        if isinstance(value, str) and "\0" in value:  # none reaches Linux: no path, argument or variable can have it
            return self._wrong(path, mark, "must not contain a NUL character")
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        if kind is Path and isinstance(value, str):
            return Path(value)
        return self._type(_NAMES.get(kind, str(kind)), value, path, mark)

    def _union(self, kinds: tuple[object, ...], value: object, path: tuple[str, ...], mark: Mark) -> object:
        able = [kind for kind in kinds if kind is not types.NoneType]
        for kind in able[:-1]:
            attempt = Reader(self._unknown)
            result = attempt.value(kind, value, path, mark)
            if not attempt.problems:
                return result
        return self.value(able[-1], value, path, mark)

    def _list(
        self, made: Callable[[list[object]], object], kind: object, value: object, path: tuple[str, ...], mark: Mark
    ) -> object:
        if not isinstance(value, list):
            return self._type("a list", value, path, mark)
        items = []
        for number, item in enumerate(value):
            place = item.mark if isinstance(item, Table) else mark
            items.append(self.value(kind, item, (*path[:-1], f"{path[-1]}[{number}]"), place))
        return made(items)

    def _dict(self, kind: object, value: object, path: tuple[str, ...], mark: Mark) -> object:
        if not isinstance(value, Table):
            return self._type("a table", value, path, mark)
        return {key: self.value(kind, item, (*path, key), value.place(key)) for key, item in value.items()}

    def _type(self, wanted: str, value: object, path: tuple[str, ...], mark: Mark) -> object:
        return self._wrong(path, mark, f"must be {wanted}, not {describe(value)}")

    def _choices(self, choices: Sequence[object], value: object, path: tuple[str, ...], mark: Mark) -> object:
        hint = did_you_mean(value, [str(choice) for choice in choices]) if isinstance(value, str) else ""
        names = ", ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in choices)
        return self._wrong(path, mark, f"must be one of {names}, not {describe(value)}{hint}")

    def _wrong(self, path: tuple[str, ...], mark: Mark, reason: str) -> object:
        """Note a problem, and return what stands for a value that there is none of."""
        self.problems.append(Problem(ERROR, mark, f'"{path[-1]}"{_inside(path[:-1])} {reason}'))
        return None


_NAMES: dict[object, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    Path: "a path in quotes",
}


def describe(value: object) -> str:
    """Return a TOML value in an operator's words, cut short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the string "{value[:40]}"' + ("…" if len(value) > 40 else "")
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, float):
        return f"the number {value:g}"
    return f"{value}"


def _has_default(field: dataclasses.Field[object]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
