"""The filter language of list and subscribe calls: strings to a test of one object (docs/containerd 3.1).

Strings are alternatives; within one string a comma means *and*; no string, or an empty one, matches everything::

    name==docker.io/library/busybox:latest,labels."app/tier"!=web

An object is seen through an *adaptor*, which answers for a field path with its value and whether it is there::

    accepts = parse(request.filters)
    images = [image for image in images if accepts(adaptor(image))]

Quoted parts follow Go's rules for string literals. Regular expressions are RE2's, searched in time proportional to
the text (`windlass.filters.regexp`); one that is not valid matches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from windlass.errors import InvalidArgument
from windlass.records import dataclass

if TYPE_CHECKING:
    from windlass.filters.regexp import Regexp

Adaptor = Callable[[Sequence[str]], tuple[str, bool]]
"""Field path to value and presence; a field that cannot be read is ``("", False)``."""

Filter = Callable[[Adaptor], bool]

ABSENT = ("", False)

MAX_FILTERS = 10_000
MAX_LENGTH = 64 << 10
"""Of one filter, in characters; a label is 4096 bytes at most."""

OPERATORS = ("==", "!=", "~=")
COMPONENT = re.compile(r"[A-Za-z0-9_]+")
VALUE = re.compile(r"[^\s,.][^\s,]*")
QUOTES = '"/|'
SHOWN = 60
ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
NUMERIC_ESCAPES = (
    (re.compile(r"x([0-9A-Fa-f]{2})"), 16),
    (re.compile(r"([0-7]{3})"), 8),
    (re.compile(r"u([0-9A-Fa-f]{4})"), 16),
    (re.compile(r"U([0-9A-Fa-f]{8})"), 16),
)


def parse(expressions: Sequence[str]) -> Filter:
    """Return the test that ``expressions`` describe; raises InvalidArgument with the position marked ``>|x|<``."""
    return accepting(parse_all(expressions))


def parse_all(expressions: Sequence[str]) -> list[tuple[Selector, ...]]:
    """Return the conditions of each of ``expressions``, one of which must hold as a whole; raises as `parse` does."""
    if len(expressions) > MAX_FILTERS:
        raise InvalidArgument(f"{len(expressions)} filters are too many, the limit is {MAX_FILTERS}")
    return [parse_one(expression) for expression in expressions]


def accepting(alternatives: Sequence[tuple[Selector, ...]]) -> Filter:
    """Return the test that the conditions of `parse_all` are."""
    if not alternatives or () in alternatives:
        return match_all

    def accepts(adaptor: Adaptor) -> bool:
        return any(all(selector.matches(adaptor) for selector in selectors) for selectors in alternatives)

    return accepts


def match_all(_adaptor: Adaptor) -> bool:
    """Accept every object."""
    return True


def value_of(value: str) -> tuple[str, bool]:
    """Return the adaptor's answer for a plain string field, which is there when it is not empty."""
    return value, value != ""


def label_of(labels: Mapping[str, str], fieldpath: Sequence[str]) -> tuple[str, bool]:
    """Return the adaptor's answer for ``labels.<key>``: the path after ``labels``, joined by dots, is the key."""
    key = ".".join(fieldpath[1:])
    return (labels[key], True) if key in labels else ABSENT


@dataclass(frozen=True, slots=True)
class Selector:
    """One condition on one field; ``operator`` is empty for presence."""

    fieldpath: tuple[str, ...]
    operator: str = ""
    value: str = ""
    regexp: Regexp | None = None

    def matches(self, adaptor: Adaptor) -> bool:
        """Return whether the object behind ``adaptor`` meets the condition."""
        value, present = adaptor(self.fieldpath)
        match self.operator:
            case "==":
                return present and value == self.value
            case "!=":
                return not present or value != self.value
            case "~=":
                return present and self.regexp is not None and self.regexp.search(value)
            case _:
                return present


def parse_one(expression: str) -> tuple[Selector, ...]:
    """Return the conditions of one filter string, all of which must hold."""
    if len(expression) > MAX_LENGTH:
        raise InvalidArgument(f"filter {expression[:SHOWN]!r}… is longer than {MAX_LENGTH} characters")
    return _Parser(expression).selectors() if expression else ()


class _Parser:
    """A cursor over one filter string. As in containerd, white space may stand before a token, never after the last."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def selectors(self) -> tuple[Selector, ...]:
        found = [self.selector()]
        while self.at < len(self.text):
            self.at += 1
            found.append(self.selector())
        return tuple(found)

    def selector(self) -> Selector:
        """Read one condition, up to a comma or the end."""
        path = self.fieldpath()
        if self.peek() in (",", ""):
            return Selector(path)
        operator = self.operator()
        value = self.value(quotes=QUOTES if operator == "~=" else '"')
        if self.peek() not in (",", ""):
            raise self.error(f"unexpected input: {self.peek()}")
        return Selector(path, operator, value, _regexp(value) if operator == "~=" else None)

    def fieldpath(self) -> tuple[str, ...]:
        path = [self.component()]
        while self.peek() == ".":
            self.at += 1
            path.append(self.component())
        return tuple(path)

    def component(self) -> str:
        self.skip_space()
        if self.peek() and self.peek() in QUOTES:
            return self.quoted('"')
        if not (word := COMPONENT.match(self.text, self.at)):
            raise self.error("expected field or quoted")
        self.at = word.end()
        return word.group()

    def operator(self) -> str:
        if self.peek() in QUOTES:
            self.check_terminated()
        self.skip_space()
        operator = "".join(takewhile(lambda char: char in "=!~", self.text[self.at :]))
        if not operator:
            raise self.error('expected an operator ("=="|"!="|"~=")')
        if operator not in OPERATORS:
            raise self.error(f'unsupported operator "{operator}"')
        self.at += len(operator)
        return operator

    def value(self, quotes: str) -> str:
        """Read what an operator compares with; ``quotes`` says which quotes it allows."""
        self.skip_space()
        if self.peek() and self.peek() in QUOTES:
            return self.quoted(quotes)
        if not (run := VALUE.match(self.text, self.at)):
            raise self.error("expected value or quoted")
        self.at = run.end()
        return run.group()

    def quoted(self, allowed: str) -> str:
        quote = self.peek()
        end = self.check_terminated()
        if quote not in allowed:
            raise self.error("invalid quote encountered")
        value = self.unquote(self.text[self.at + 1 : end], quote)
        self.at = end + 1
        return value

    def check_terminated(self) -> int:
        """Return where the quote at the cursor is closed."""
        quote, at = self.peek(), self.at + 1
        while at < len(self.text) and self.text[at] not in (quote, "\n"):
            at += 2 if self.text[at] == "\\" else 1
        if at >= len(self.text) or self.text[at] != quote:
            raise self.error("quoted literal not terminated")
        return at

    def unquote(self, text: str, quote: str) -> str:
        """Undo Go's escapes; bytes that are no UTF-8 become surrogates, which no stored text has."""
        if "\\" not in text:
            return text
        plain = bytearray()
        at = 0
        while at < len(text):
            if text[at] != "\\":
                plain += text[at].encode(errors="surrogatepass")
                at += 1
                continue
            code, length = self.escape(text, at + 1, quote)
            plain += code
            at += 1 + length
        return plain.decode(errors="surrogateescape")

    def escape(self, text: str, at: int, quote: str) -> tuple[bytes, int]:
        """Return what the escape after a backslash stands for, and its length."""
        if text[at] == quote:
            return quote.encode(), 1
        if text[at] in ESCAPES:
            return bytes([ESCAPES[text[at]]]), 1
        for form, base in NUMERIC_ESCAPES:
            if number := form.match(text, at):
                return self.numeric_escape(text[at], int(number[1], base)), len(number[0])
        raise self.error("illegal escape sequence")

    def numeric_escape(self, kind: str, number: int) -> bytes:
        if kind not in "uU":
            if number > 0xFF:
                raise self.error("quote syntax error")
            return bytes([number])
        if number > 0x10FFFF:
            raise self.error("quote syntax error")
        return chr(number).encode(errors="replace")

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def skip_space(self) -> None:
        while self.peek().isspace():
            self.at += 1

    def error(self, problem: str) -> InvalidArgument:
        """Return the error for the cursor's place, in containerd's form."""
        before, at, after = self.text[: self.at], self.peek(), self.text[self.at + 1 :]
        if len(before) > SHOWN:
            before = "…" + before[-SHOWN:]
        if len(after) > SHOWN:
            after = after[:SHOWN] + "…"
        place = f"{before} >|{at}|< {after}" if at else before
        return InvalidArgument(f"filters: parse error: [{place}]: {problem}")


def _regexp(pattern: str) -> Regexp | None:
    from windlass.filters.regexp import InvalidRegexp, Regexp  # the classes of its trees cost a start 10 ms

    try:
        return Regexp(pattern)
    except InvalidRegexp:
        return None
