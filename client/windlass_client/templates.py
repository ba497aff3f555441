"""Go's templates, as far as people use them with docker's `--format`, over dictionaries, lists and plain values.

Known are fields (`.State.Status`), variables, `range`, `if`, `with`, `else`, pipelines, and the functions of
`windlass_client.templatefunctions`. Anything else is an error that says where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from windlass.errors import InvalidArgument
from windlass_client.templatefunctions import FUNCTIONS, Value, is_true, text_of

ACTION = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<number>-?\d+)|(?P<sign>:=|[|(),])'
    r"|(?P<path>(?:\$\w*)?(?:\.[A-Za-z_]\w*)+|\$\w*|\.)|(?P<word>[A-Za-z_]\w*))"
)
BLOCKS = ("range", "if", "with")

Scope = Mapping[str, Value]
"""Variables by name; ``.`` is the value that a block is about, ``$`` the whole."""
Evaluate = Callable[[Scope], Value]


@dataclass
class Block:
    """Part of a template between two actions that belong together; text and expressions are parts of their own."""

    kind: str = ""
    names: Sequence[str] = ()
    about: Evaluate = lambda scope: None
    body: list[Block | str | Evaluate] = field(default_factory=list)
    otherwise: list[Block | str | Evaluate] = field(default_factory=list)


class Template:
    """A template that was read; raises InvalidArgument for what is not understood."""

    def __init__(self, text: str) -> None:
        self._body = _parse(text)

    def render(self, value: Value) -> str:
        """Return the text for one value."""
        return "".join(_render(self._body, {".": value, "$": value}))


def _parse(text: str) -> list[Block | str | Evaluate]:
    top = Block()
    open_blocks, targets = [top], [top.body]
    for part in _parts(text):
        if part.kind == "text":
            targets[-1].append(part.text)
        elif part.kind in BLOCKS:
            block = _block(part)
            targets[-1].append(block)
            open_blocks.append(block)
            targets.append(block.body)
        elif part.kind == "else" and len(targets) > 1:
            targets[-1] = open_blocks[-1].otherwise
            if part.text:
                raise InvalidArgument(f"template action {{{{else {part.text}}}}} is not known; nest another if")
        elif part.kind == "end" and len(targets) > 1:
            open_blocks.pop()
            targets.pop()
        elif part.kind == "value":
            targets[-1].append(_Expression(part.text).whole())
        else:
            raise InvalidArgument(f"template has {{{{{part.kind}}}}} without a block that it belongs to")
    if len(targets) > 1:
        raise InvalidArgument(f"template has {{{{{open_blocks[-1].kind}}}}} without {{{{end}}}}")
    return top.body


@dataclass(frozen=True)
class Part:
    """Text, or what stands between braces."""

    kind: str
    text: str


def _parts(text: str) -> Iterator[Part]:
    at, trim = 0, False
    for match in ACTION.finditer(text):
        before = text[at : match.start()]
        before = before.lstrip() if trim else before
        yield Part("text", before.rstrip() if match[1] else before)
        word, _, rest = match[2].partition(" ")
        if match[2].startswith("/*"):
            pass
        elif word in (*BLOCKS, "else", "end"):
            yield Part(word, rest.strip())
        else:
            yield Part("value", match[2])
        at, trim = match.end(), bool(match[3])
    last = text[at:]
    if "{{" in last:
        raise InvalidArgument(f"template action {last[:40]!r} has no end")
    yield Part("text", last.lstrip() if trim else last)


def _block(part: Part) -> Block:
    names, sign, about = part.text.rpartition(":=")
    found = [name.strip() for name in names.split(",")] if sign else []
    if any(not re.fullmatch(r"\$\w+", name) for name in found) or len(found) > 2:
        raise InvalidArgument(f"template variables {names.strip()!r} are not like $name or $key, $value")
    return Block(part.kind, found, _Expression(about).whole())


def _render(parts: Sequence[Block | str | Evaluate], scope: Scope) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, Block):
            yield from _render_block(part, scope)
        else:
            yield text_of(part(scope))


def _render_block(block: Block, scope: Scope) -> Iterator[str]:
    value = block.about(scope)
    if not is_true(value):
        yield from _render(block.otherwise, scope)
    elif block.kind == "range":
        for key, each in _items(value):
            bound = zip(block.names, (key, each) if len(block.names) == 2 else (each,), strict=False)
            yield from _render(block.body, {**scope, **dict(bound), ".": each})
    else:
        inside = {".": value} if block.kind == "with" else {}
        yield from _render(block.body, {**scope, **dict.fromkeys(block.names, value), **inside})


def _items(value: Value) -> Iterator[tuple[Value, Value]]:
    if isinstance(value, Mapping):
        yield from sorted(value.items())
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    else:
        raise InvalidArgument(f"template ranges over {text_of(value)[:40]!r}, which is neither a list nor a map")


class _Expression:
    """A cursor over the tokens of one action."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text.rstrip()):
            match = TOKEN.match(text, at)
            if not match or not match.lastgroup:
                raise self._error()
            text_of_token = match[match.lastgroup]
            joined = self._tokens and text_of_token.startswith(".") and match.start(match.lastgroup) == at
            self._tokens.append(("field" if joined else match.lastgroup, text_of_token))
            at = match.end()

    def _error(self) -> InvalidArgument:
        return InvalidArgument(f"template action {{{{{self._text[:60]}}}}} is not understood")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[0] if self._tokens else ("", "")

    def whole(self) -> Evaluate:
        """Return what the action means."""
        found = self._pipeline()
        if self._tokens:
            raise self._error()
        return found

    def _pipeline(self) -> Evaluate:
        found = self._command(None)
        while self._peek() == ("sign", "|"):
            self._tokens.pop(0)
            found = self._command(found)
        return found

    def _command(self, last: Evaluate | None) -> Evaluate:
        kind, text = self._peek()
        if kind == "word" and text not in ("true", "false", "nil"):
            self._tokens.pop(0)
            return self._call(text, [*self._operands(), *([last] if last else [])])
        found = self._operands()
        if last is None and len(found) == 1:
            return found[0]
        if len(found) == 2 and last is None and kind == "path":
            # docker's rows have one method, {{.Label "key"}}
            return lambda scope: FUNCTIONS["index"](found[0](scope), found[1](scope))
        raise self._error()

    def _call(self, name: str, arguments: Sequence[Evaluate]) -> Evaluate:
        if name not in FUNCTIONS:
            raise InvalidArgument(f"template function {name!r} is not known; known are {', '.join(sorted(FUNCTIONS))}")

        def call(scope: Scope) -> Value:
            try:
                return FUNCTIONS[name](*(each(scope) for each in arguments))
            except (TypeError, IndexError, ValueError) as error:
                raise InvalidArgument(f"template action {{{{{self._text[:60]}}}}}: {error}") from None

        return call

    def _operands(self) -> list[Evaluate]:
        found: list[Evaluate] = []
        while self._tokens and self._peek() not in (("sign", "|"), ("sign", ")")):
            found.append(self._operand(*self._tokens.pop(0)))
        return found

    def _operand(self, kind: str, text: str) -> Evaluate:
        if kind == "string":
            value: Value = text[1:-1] if text.startswith("`") else json.loads(text)
            return lambda scope: value
        if kind == "number":
            return lambda scope: int(text)
        if kind == "word" and text in ("true", "false", "nil"):
            return lambda scope: {"true": True, "false": False, "nil": None}[text]
        if kind == "path":
            return _path(text)
        if (kind, text) == ("sign", "("):
            inner = self._pipeline()
            if not self._tokens or self._tokens.pop(0) != ("sign", ")"):
                raise self._error()
            if self._peek()[0] == "field":
                last = _path(self._tokens.pop(0)[1])
                return lambda scope: last({".": inner(scope)})
            return inner
        raise self._error()


def _path(text: str) -> Evaluate:
    start, *names = text.split(".")

    def look(scope: Scope) -> Value:
        if start and start not in scope:
            raise InvalidArgument(f"template variable {start} is not set")
        value = scope[start or "."]
        for name in filter(None, names):
            if not isinstance(value, Mapping) or name not in value:
                known = f"; known are {', '.join(sorted(value))}" if isinstance(value, Mapping) and value else ""
                raise InvalidArgument(f"template field {text} does not exist{known}")
            value = value[name]
        return value

    return look
