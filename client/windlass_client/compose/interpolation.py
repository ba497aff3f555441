"""Variables in the values of a compose file: `$A`, `${A:-default}`, `${A:?message}`, `${A:+other}`; `$$` is `$`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from windlass_client.compose.values import Items, Scalar, Section, Value, is_extension, wrong

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OPERATOR = re.compile(r":?[-?+]")
DEEPEST = 20
LONGEST = 1 << 20


class BadVariable(Exception):
    """A text with variables that cannot be replaced; the caller knows where it is."""


@dataclass
class Variables:
    """The variables that values refer to, and those that a file missed."""

    known: Mapping[str, str]
    missing: dict[str, None] = field(default_factory=dict)

    def replace(self, text: str, depth: int = 0) -> str:
        """Return a text with its variables replaced. Raises BadVariable."""
        if depth > DEEPEST:
            raise BadVariable(f"variables are nested more than {DEEPEST} levels deep")
        parts, position, length = [], 0, 0
        while (found := text.find("$", position)) >= 0:
            value, end = self._at(text, found + 1, depth)
            parts += [text[position:found], value]
            length += found - position + len(value)
            if length > LONGEST:
                raise BadVariable(f"with its variables it is longer than {LONGEST >> 20} MiB")
            position = end
        return "".join([*parts, text[position:]])

    def _at(self, text: str, start: int, depth: int) -> tuple[str, int]:
        """Return what stands for the variable whose `$` is before ``start``, and where it ends."""
        if text.startswith("$", start):
            return "$", start + 1
        if text.startswith("{", start):
            end = _closing(text, start)
            return self._braced(text[start + 1 : end], depth), end + 1
        name = NAME.match(text, start)
        if not name:
            raise BadVariable("a $ that begins no variable; write $$ for a plain $")
        return self._get(name[0]), name.end()

    def _braced(self, inside: str, depth: int) -> str:
        name = NAME.match(inside)
        if not name:
            raise BadVariable(f"${{{inside[:40]}}} names no variable; write $$ for a plain $")
        rest = inside[name.end() :]
        if not rest:
            return self._get(name[0])
        operator = OPERATOR.match(rest)
        if not operator:
            raise BadVariable(f"${{{inside[:40]}}} has an unknown operator; known are :- - :? ? :+ +")
        return self._operate(name[0], operator[0], rest[operator.end() :], depth)

    def _operate(self, name: str, operator: str, word: str, depth: int) -> str:
        value = self.known.get(name)
        # with the colon an empty variable counts as one that is not set
        there = bool(value) if operator.startswith(":") else value is not None
        if operator.endswith("+"):
            return self.replace(word, depth + 1) if there else ""
        if there:
            return value or ""
        if operator.endswith("-"):
            return self.replace(word, depth + 1)
        message = self.replace(word, depth + 1) or "a value is required"
        raise BadVariable(f"variable {name} is not set: {message}; set it in the environment or in .env")

    def _get(self, name: str) -> str:
        if name not in self.known:
            self.missing[name] = None
        return self.known.get(name, "")


def _closing(text: str, start: int) -> int:
    depth = 0
    for position in range(start, len(text)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if not depth:
                return position
    raise BadVariable("${ without its }")


def interpolate(value: Section, variables: Variables) -> Section:
    """Return a file with the variables of its values replaced; keys stay, and so does what is under `x-` keys."""
    return _section(value, "", variables)


def _section(value: Section, path: str, variables: Variables) -> Section:
    entries = {
        key: entry if is_extension(key) else _value(entry, f"{path}.{key}".lstrip("."), variables)
        for key, entry in value.entries.items()
    }
    return replace(value, entries=entries)


def _value(value: Value, path: str, variables: Variables) -> Value:
    if isinstance(value, Section):
        return _section(value, path, variables)
    if isinstance(value, Items):
        found = tuple(_value(each, f"{path}.{number}", variables) for number, each in enumerate(value.items))
        return replace(value, items=found)
    return _scalar(value, path, variables)


def _scalar(value: Scalar, path: str, variables: Variables) -> Scalar:
    if value.text is None or "$" not in value.text:
        return value
    try:
        return replace(value, text=variables.replace(value.text))
    except BadVariable as error:
        raise wrong(value, path, str(error)) from None
