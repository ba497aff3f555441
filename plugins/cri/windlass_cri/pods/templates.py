"""Go's text/template as far as network templates use it: fields, variables, ``range``, ``if``, ``else`` and ``end``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from windlass.errors import Unknown

Data = str | int | Sequence[str]
Scope = Mapping[str, Data]
"""What names stand for: fields as ".Name", variables as "$name", the element of a ``range`` as "."."""

MOST = 1 << 20
_ACTION = re.compile(r"\{\{(- )?(.*?)( -)?\}\}", re.DOTALL)
_RANGE = re.compile(r"range\s+(?:(?:(\$\w+)\s*,\s*)?(\$\w+)\s*:=\s*)?([.$]\w+)")
_IF = re.compile(r"if\s+([.$]\w*)")
_NAME = re.compile(r"[.$]\w*")


class _Tokens:
    """Texts and actions in turn."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0

    def __iter__(self) -> Iterator[tuple[bool, str]]:
        while self._next < len(self._tokens):
            self._next += 1
            yield self._tokens[self._next - 1]

    def back_to(self, place: int) -> None:
        """Go on at a place that `place` was."""
        self._next = place

    @property
    def place(self) -> int:
        """Where it is."""
        return self._next


def render(text: str, fields: Mapping[str, Data]) -> str:
    """Return the text with its actions done. Raises Unknown for an action that is not known, or has no end."""
    tokens = _Tokens(text)
    out: list[str] = []
    if end := _block(tokens, {f".{name}": value for name, value in fields.items()}, out, wanted=True):
        raise Unknown(f"template: {{{{{end}}}}} ends nothing")
    return "".join(out)


def _tokens(text: str) -> Iterator[tuple[bool, str]]:
    place, trim = 0, False
    for match in _ACTION.finditer(text):
        before = text[place : match.start()]
        before = before.lstrip() if trim else before
        yield False, before.rstrip() if match[1] else before
        place, trim = match.end(), bool(match[3])
        if not (match[2].startswith("/*") and match[2].endswith("*/")):
            yield True, match[2].strip()
    yield False, text[place:].lstrip() if trim else text[place:]


def _block(tokens: _Tokens, scope: Scope, out: list[str], *, wanted: bool) -> str:
    """Write what comes until the block's end, if it is ``wanted``; return the action that ends it, "" for none."""
    for is_action, text in tokens:
        if not is_action:
            if wanted:
                _write(out, text)
        elif text in ("end", "else"):
            return text
        elif match := _RANGE.fullmatch(text):
            _range(tokens, scope, out, match, wanted=wanted)
        elif match := _IF.fullmatch(text):
            _if(tokens, scope, out, match[1], wanted=wanted)
        elif _NAME.fullmatch(text):
            if wanted:
                value = _value(scope, text)
                _write(out, str(value) if isinstance(value, (str, int)) else f"[{' '.join(value)}]")
        else:
            raise Unknown(f"template: {{{{{text[:100]}}}}} is not known; there are names, range, if, else and end")
    return ""


def _write(out: list[str], text: str) -> None:
    out.append(text)
    if sum(map(len, out)) > MOST:
        raise Unknown(f"template: the result is longer than {MOST} bytes")


def _if(tokens: _Tokens, scope: Scope, out: list[str], name: str, *, wanted: bool) -> None:
    holds = wanted and bool(_value(scope, name))
    end = _block(tokens, scope, out, wanted=holds)
    if end == "else":
        end = _block(tokens, scope, out, wanted=wanted and not holds)
    _expect_end(end)


def _range(tokens: _Tokens, scope: Scope, out: list[str], match: re.Match[str], *, wanted: bool) -> None:
    index, element, name = match.groups()
    values = _value(scope, name) if wanted else ()
    if isinstance(values, (str, int)):
        raise Unknown(f"template: {name} is not a list")
    start, end = tokens.place, ""
    for number, value in enumerate(values):
        tokens.back_to(start)
        inner = {**scope, ".": value, **({index: number} if index else {}), **({element: value} if element else {})}
        end = _block(tokens, inner, out, wanted=True)
    if not values:
        end = _block(tokens, scope, out, wanted=False)
    if end == "else":
        end = _block(tokens, scope, out, wanted=wanted and not values)
    _expect_end(end)


def _expect_end(found: str) -> None:
    if found != "end":
        raise Unknown("template: a range or if has no {{end}}")


def _value(scope: Scope, name: str) -> Data:
    try:
        return scope[name]
    except KeyError:
        there = ", ".join(sorted(key for key in scope if len(key) > 1))
        raise Unknown(f"template: there is no {name}; there are {there}") from None
