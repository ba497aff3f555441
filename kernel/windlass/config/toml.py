"""TOML that remembers where each value was written, and the comments around it.

The standard library's parser gives the values; a scan of the same text, which
it has found to be valid, gives line numbers and comments. `render` writes a
table back with the comments of its marks, so that a migrated file keeps them.
"""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from windlass.records import dataclass

LIMIT = 4 << 20
"""Longest file in bytes; a configuration of four megabytes is a mistake."""

_BLANK = re.compile(r"[ \t]+")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^\"'#\[\]{}\n]+")
_COMMENT = re.compile(r"#[^\n]*")
_AT = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Mark:
    """Where something was written, with the comment lines above it and the comment after it."""

    file: str
    line: int = 0
    above: tuple[str, ...] = ()
    beside: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


# Any: a TOML value.
class Table(dict[str, Any]):
    """A table that knows where it and each of its values were written."""

    __slots__ = ("mark", "marks", "tail")

    def __init__(self, mark: Mark) -> None:
        """Make an empty table that was written at ``mark``."""
        super().__init__()
        self.mark = mark
        self.marks: dict[str, Mark] = {}
        self.tail: tuple[str, ...] = ()

    def place(self, key: str) -> Mark:
        """Return where a value was written, or the table if the value came about otherwise."""
        value = self.get(key)
        return value.mark if isinstance(value, Table) else self.marks.get(key, self.mark)

    def put(self, key: str, value: object, mark: Mark) -> None:
        """Set a value that was written at ``mark``."""
        self[key] = value
        self.marks[key] = mark


class SyntaxProblem(ValueError):
    """The text is not TOML."""

    def __init__(self, mark: Mark, reason: str) -> None:
        """Say what is wrong at ``mark``."""
        super().__init__(reason)
        self.mark = mark


def parse(text: str, file: str) -> Table:
    """Return the document's table; raises SyntaxProblem with the line."""
    text = text.replace("\r\n", "\n")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _AT.search(str(error))
        last = text.rstrip("\n").count("\n") + 1
        line = int(found[1]) if found and found[1] else last
        raise SyntaxProblem(Mark(file, line), _AT.sub("", str(error))) from None
    except RecursionError:
        raise SyntaxProblem(Mark(file, 1), "values are nested too deeply") from None
    scan = _Scan(text, file)
    marks = dict(scan.marks())
    table = _table(values, marks, (), Mark(file, 1))
    table.tail = tuple(scan.above)
    return table


Keys = tuple[str | int, ...]


def _table(values: Mapping[str, object], marks: dict[Keys, Mark], path: Keys, mark: Mark) -> Table:
    table = Table(mark)
    for key, value in values.items():
        here = marks.get((*path, key), Mark(mark.file, mark.line))
        table.put(key, _value(value, marks, (*path, key), here), here)
    return table


def _value(value: object, marks: dict[Keys, Mark], path: Keys, mark: Mark) -> object:
    if isinstance(value, dict):
        return _table(value, marks, path, mark)
    if isinstance(value, list):
        here = Mark(mark.file, mark.line)
        return [_value(item, marks, (*path, i), marks.get((*path, i), here)) for i, item in enumerate(value)]
    return value


class _Scan:
    """One pass over valid TOML text that finds where keys and tables are written."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._pos = 0
        self._line = 1
        self._arrays: dict[Keys, int] = {}
        self.above: list[str] = []

    def marks(self) -> Iterator[tuple[Keys, Mark]]:
        """Yield the path of every table and value with its mark; `above` holds the comments after the last."""
        seen: set[Keys] = set()
        table: Keys = ()
        while self._pos < len(self._text):
            if self._skip():
                continue
            line, above = self._line, tuple(self.above)
            self.above.clear()
            if self._text[self._pos] == "[":
                table = path = self._header()
            else:
                path = (*table, *self._key())
            beside = self._rest()
            for length in range(1, len(path)):
                if path[:length] not in seen:
                    seen.add(path[:length])
                    yield path[:length], Mark(self._file, line)
            if path not in seen or above or beside:
                seen.add(path)
                yield path, Mark(self._file, line, above, beside)

    def _skip(self) -> bool:
        """Step over a blank, a comment line or an empty line, and return whether there was one."""
        character = self._text[self._pos]
        if character in " \t":
            self._take(_BLANK)
        elif character == "\n":
            self._newline()
            if self.above and self.above[-1]:
                self.above.append("")
        elif character == "#":
            self.above.append(self._take(_COMMENT).rstrip())
            if self._pos < len(self._text):
                self._newline()
        else:
            return False
        return True

    def _header(self) -> Keys:
        array = self._text.startswith("[[", self._pos)
        self._pos += 2 if array else 1
        path: Keys = ()
        keys = self._key()
        for number, key in enumerate(keys, 1):
            path = (*path, key)
            if array and number == len(keys):
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path = (*path, self._arrays[path])
        self._pos += 2 if array else 1
        return path

    def _key(self) -> tuple[str, ...]:
        """Take a dotted key and the sign after it, unless that closes a header."""
        keys = []
        while True:
            self._take(_BLANK)
            if self._text[self._pos] in "\"'":
                quoted = self._take(_STRING)
                keys.append(str(tomllib.loads(f"k = {quoted}")["k"]))
            else:
                keys.append(self._take(_BARE))
            self._take(_BLANK)
            sign = self._text[self._pos]
            if sign in ".=":
                self._pos += 1
            if sign != ".":
                return tuple(keys)

    def _rest(self) -> str:
        """Take the value, or what follows a header, to the end of its last line; return the comments in it."""
        depth = 0
        comments: list[str] = []
        while self._pos < len(self._text):
            character = self._text[self._pos]
            if character == "\n":
                self._newline()
                if depth == 0:
                    break
            elif character in "\"'":
                self._line += self._take(_STRING).count("\n")
            elif character == "#":
                comments.append(self._take(_COMMENT).rstrip())
            elif character in "[]{}":
                depth += 1 if character in "[{" else -1
                self._pos += 1
            else:
                self._take(_PLAIN)
        return " ".join(comments)

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._pos)
        if found is None:
            return ""
        self._pos = found.end()
        return found[0]

    def _newline(self) -> None:
        self._pos += 1
        self._line += 1


def quote(key: str) -> str:
    """Return a key as it is written in TOML."""
    return key if _BARE.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def literal(value: object) -> str:
    """Return a value as it is written behind ``key =``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, dict):
        pairs = ", ".join(f"{quote(key)} = {literal(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, (list, tuple)):
        items = [literal(item) for item in value]
        if sum(map(len, items)) > _WIDTH:
            return "[\n" + "".join(f"    {item},\n" for item in items) + "]"
        return f"[{', '.join(items)}]"
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    return repr(value)


def render(table: Mapping[str, object]) -> str:
    """Return the document as text, each value and table with the comments of its mark."""
    lines = list(_render(table, ()))
    while lines and not lines[0]:
        lines.pop(0)
    if isinstance(table, Table) and table.tail:
        lines += ["", *table.tail]
    return "\n".join(lines).rstrip("\n") + "\n"


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _render(table: Mapping[str, object], path: tuple[str, ...]) -> Iterator[str]:
    marks = table.marks if isinstance(table, Table) else {}
    inner = []
    for key, value in table.items():
        if isinstance(value, dict) or _is_tables(value):
            inner.append((key, value))
            continue
        mark = marks.get(key, Mark(""))
        yield from mark.above
        yield f"{quote(key)} = {literal(value)}" + (f"  {mark.beside}" if mark.beside else "")
    for key, value in inner:
        below = (*path, quote(key))
        if isinstance(value, list) and key in marks:
            yield from marks[key].above
            yield from [marks[key].beside] if marks[key].beside else []
        for item in value if isinstance(value, list) else [value]:
            assert isinstance(item, dict)  # what is not a table stands above
            yield from _headed(item, below, is_array=isinstance(value, list))


def _headed(table: Mapping[str, object], path: tuple[str, ...], is_array: bool) -> Iterator[str]:
    mark = table.mark if isinstance(table, Table) else Mark("")
    plain = all(isinstance(value, dict) or _is_tables(value) for value in table.values())
    if is_array or not table or not plain or mark.above or mark.beside:
        header = f"[[{'.'.join(path)}]]" if is_array else f"[{'.'.join(path)}]"
        yield ""
        yield from mark.above
        yield header + (f"  {mark.beside}" if mark.beside else "")
    yield from _render(table, path)
