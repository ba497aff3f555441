"""Files of variables: `.env`, and what `env_file` names.

A line is `KEY=value`, with `export` before it if one likes. Double quotes know escapes and variables, single quotes
keep everything as it is, both may span lines; without quotes a value ends at ` #`. `KEY` alone takes the variable of
the environment, if there is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from windlass.errors import InvalidArgument, NotFound
from windlass_client.compose.interpolation import BadVariable, Variables

LARGEST_FILE = 1 << 20
KEY = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(=|:[ \t]|(?=\n|$|#))[ \t]*")
COMMENT = re.compile(r"(?:^|[ \t])#.*")
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}


def read(path: Path, known: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a file. Raises NotFound, InvalidArgument."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InvalidArgument(f"{path} is larger than {LARGEST_FILE >> 20} MiB, so it is not a file of variables")
        return parse(path.read_text(), str(path), known)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist; create it, or name another file of variables") from None
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def parse(text: str, file: str, known: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a text; its values may refer to those before them and to ``known``, which is stronger."""
    return _Parser(text.replace("\r\n", "\n").removeprefix("\ufeff"), file, known).variables()


class _Parser:
    def __init__(self, text: str, file: str, known: Mapping[str, str]) -> None:
        self._text = text
        self._file = file
        self._known = known
        self._position = 0
        self._found: dict[str, str] = {}

    def variables(self) -> dict[str, str]:
        """Return all variables."""
        while self._skip_blank():
            start = self._position
            match = KEY.match(self._text, start)
            if not match:
                raise self._wrong(start, "not of the form KEY=value")
            self._position = match.end()
            if match[2]:
                self._found[match[1]] = self._value(start)
            elif match[1] in self._known:
                self._found[match[1]] = self._known[match[1]]
            self._finish_line(start)
        return self._found

    def _skip_blank(self) -> bool:
        while self._position < len(self._text):
            if self._text[self._position] == "#":
                self._position = self._end_of_line()
            elif not self._text[self._position].isspace():
                return True
            else:
                self._position += 1
        return False

    def _value(self, start: int) -> str:
        quote = self._text[self._position : self._position + 1]
        if quote == "'":
            return self._quoted("'", start)
        if quote == '"':
            return self._replace(_unescape(self._quoted('"', start)), start)
        end = self._end_of_line()
        text = COMMENT.sub("", self._text[self._position : end]).strip()
        self._position = end
        return self._replace(text, start)

    def _quoted(self, quote: str, start: int) -> str:
        end = self._position + 1
        while end < len(self._text) and self._text[end] != quote:
            end += 2 if quote == '"' and self._text[end] == "\\" else 1
        if end >= len(self._text):
            raise self._wrong(start, f"a {quote} without its end")
        inside = self._text[self._position + 1 : end]
        self._position = end + 1
        return inside

    def _replace(self, text: str, start: int) -> str:
        try:
            return Variables({**self._found, **self._known}).replace(text)
        except BadVariable as error:
            raise self._wrong(start, str(error)) from None

    def _finish_line(self, start: int) -> None:
        end = self._end_of_line()
        rest = self._text[self._position : end].strip()
        if rest and not rest.startswith("#"):
            raise self._wrong(start, f"{rest[:40]!r} after the value")
        self._position = end

    def _end_of_line(self) -> int:
        end = self._text.find("\n", self._position)
        return len(self._text) if end < 0 else end

    def _wrong(self, position: int, problem: str) -> InvalidArgument:
        return InvalidArgument(f"{self._file}:{self._text.count(chr(10), 0, position) + 1}: {problem}")


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[0]), text, flags=re.DOTALL)
