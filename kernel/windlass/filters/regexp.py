r"""Regular expressions of RE2's syntax, searched in time proportional to the text.

Filters come from clients, and a pattern such as ``(a+)+$`` keeps `re`, which backtracks, busy for ever while it holds
the interpreter. Here a pattern becomes an automaton whose deterministic states are made when they are first met.
Syntax as in Go's package ``regexp/syntax``, Perl flavour; scripts (``\p{Greek}``) are not supported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import field, replace
from unicodedata import category

from windlass.errors import InvalidArgument
from windlass.records import dataclass

MAX_REPEAT = 1000
"""As in RE2, nested repetitions multiplied."""
MAX_DEPTH = 100
MAX_PROGRAM = 2000
MAX_STEPS = 10_000
"""Steps between deterministic states that are remembered; all are forgotten when there are more."""

Test = Callable[[str], bool]
Range = tuple[str, str]


class InvalidRegexp(ValueError):
    """The pattern is not valid RE2 syntax."""


@dataclass(frozen=True, slots=True)
class Char:
    """Consumes one character that passes ``test``."""

    test: Test


@dataclass(frozen=True, slots=True)
class Look:
    """Consumes nothing; ``holds`` sees the kinds of the characters before and after."""

    holds: Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Concat:
    """One after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Any one of them."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """``most`` None is without end."""

    node: Node
    least: int
    most: int | None


Node = Char | Look | Concat | Choice | Repeat

EDGE, NEWLINE, WORD, OTHER = "edge", "newline", "word", "other"


def _kind(char: str) -> str:
    if not char:
        return EDGE
    if char == "\n":
        return NEWLINE
    return WORD if char.isascii() and (char.isalnum() or char == "_") else OTHER


BEGIN_TEXT = Look(lambda before, _after: before == EDGE)
END_TEXT = Look(lambda _before, after: after == EDGE)
BEGIN_LINE = Look(lambda before, _after: before in (EDGE, NEWLINE))
END_LINE = Look(lambda _before, after: after in (EDGE, NEWLINE))
BOUNDARY = Look(lambda before, after: (before == WORD) != (after == WORD))
NO_BOUNDARY = Look(lambda before, after: (before == WORD) == (after == WORD))
LOOKS = {"A": BEGIN_TEXT, "z": END_TEXT, "b": BOUNDARY, "B": NO_BOUNDARY}

DIGIT: list[Range] = [("0", "9")]
BLANK: list[Range] = [("\t", "\n"), ("\f", "\r"), (" ", " ")]
ALPHA: list[Range] = [("A", "Z"), ("a", "z")]
WORDS: list[Range] = [*DIGIT, *ALPHA, ("_", "_")]
PERL = {"d": DIGIT, "s": BLANK, "w": WORDS}
POSIX: dict[str, list[Range]] = {
    "alnum": [*DIGIT, *ALPHA],
    "alpha": ALPHA,
    "ascii": [("\0", "\x7f")],
    "blank": [("\t", "\t"), (" ", " ")],
    "cntrl": [("\0", "\x1f"), ("\x7f", "\x7f")],
    "digit": DIGIT,
    "graph": [("!", "~")],
    "lower": [("a", "z")],
    "print": [(" ", "~")],
    "punct": [("!", "/"), (":", "@"), ("[", "`"), ("{", "~")],
    "space": [("\t", "\r"), (" ", " ")],
    "upper": [("A", "Z")],
    "word": WORDS,
    "xdigit": [*DIGIT, ("A", "F"), ("a", "f")],
}
CATEGORIES = {
    *("L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mn", "Mc", "Me", "N", "Nd", "Nl", "No"),
    *("P", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S", "Sm", "Sc", "Sk", "So"),
    *("Z", "Zs", "Zl", "Zp", "C", "Cc", "Cf", "Cs", "Co"),
}
ESCAPES = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
COUNT = re.compile(r"\{(0|[1-9][0-9]{0,7})(,(0|[1-9][0-9]{0,7})?)?\}")
GROUP = re.compile(r"\(\?(?:P?<(\w+)>|([imsU]*)(-[imsU]+)?([:)]))", re.ASCII)
PROPERTY = re.compile(r"\\([pP])(?:\{(\^?)(\w+)\}|([A-Z]))", re.ASCII)
POSIX_CLASS = re.compile(r"\[:(\^?)([a-z]+):\]")
NUMBER = re.compile(r"\\(?:x\{([0-9A-Fa-f]{1,8})\}|x([0-9A-Fa-f]{2})|(0[0-7]{0,2}|[1-7][0-7]{1,2}))")


def _within(ranges: Sequence[Range]) -> Test:
    if len(ranges) == 1:
        low, high = ranges[0]
        return lambda char: low <= char <= high
    return lambda char: any(low <= char <= high for low, high in ranges)


def _not(test: Test) -> Test:
    return lambda char: not test(char)


def _folded(test: Test) -> Test:
    """Let ``test`` accept a character for any of its cases that is one character."""
    return lambda char: any(
        test(case) for case in (char, char.lower(), char.upper(), char.casefold()) if len(case) == 1
    )


def _in_category(name: str) -> Test:
    return lambda char: category(char).startswith(name)


@dataclass(frozen=True, slots=True)
class Flags:
    """``i``, ``m`` and ``s``; ``U`` changes which match is found, never whether there is one."""

    i: bool = False
    m: bool = False
    s: bool = False


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.at = 0
        self.flags = Flags()

    def parse(self) -> Node:
        node = self.alternatives(0)
        if self.at < len(self.text):
            raise InvalidRegexp("unexpected )")
        return node

    def alternatives(self, depth: int) -> Node:
        """Read up to the end or to the parenthesis that closes the group; flags end with the group."""
        if depth > MAX_DEPTH:
            raise InvalidArgument(f"regular expression is nested deeper than {MAX_DEPTH}")
        outer = self.flags
        parts = [self.sequence(depth)]
        while self.accept("|"):
            parts.append(self.sequence(depth))
        self.flags = outer
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        repeatable = False
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            if count := self.repetition():
                if not repeatable:
                    raise InvalidRegexp("nothing to repeat")
                parts[-1] = _repeat(parts[-1], *count)
                repeatable = False
                continue
            items = self.item(depth)
            parts += items
            repeatable = bool(items)
        return parts[0] if len(parts) == 1 else Concat(tuple(parts))

    def repetition(self) -> tuple[int, int | None] | None:
        """Read ``*``, ``+``, ``?`` or a count, each perhaps lazy, if one stands here."""
        char = self.text[self.at]
        if char in "*+?":
            self.at += 1
            self.accept("?")
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        # A brace that is not a count stands for itself.
        if not (count := COUNT.match(self.text, self.at)):
            return None
        self.at = count.end()
        self.accept("?")
        least = int(count[1])
        most = (int(count[3]) if count[3] else None) if count[2] else least
        if least > MAX_REPEAT or (most is not None and not least <= most <= MAX_REPEAT):
            raise InvalidRegexp("invalid repeat count")
        return least, most

    def item(self, depth: int) -> list[Node]:
        char = self.text[self.at]
        if char == "(":
            return self.group(depth)
        if char == "[":
            return [Char(self.bracket())]
        if char == "\\":
            return self.escape()
        self.at += 1
        if char == ".":
            return [Char((lambda _: True) if self.flags.s else (lambda c: c != "\n"))]
        if char == "^":
            return [BEGIN_LINE if self.flags.m else BEGIN_TEXT]
        if char == "$":
            return [END_LINE if self.flags.m else END_TEXT]
        return [self.literal(char)]

    def literal(self, char: str) -> Node:
        if not self.flags.i:
            return Char(char.__eq__)
        folded = char.casefold()
        return Char(lambda c: c.casefold() == folded)

    def group(self, depth: int) -> list[Node]:
        outer = self.flags
        if not self.text.startswith("(?", self.at):
            self.at += 1
        elif not (opening := GROUP.match(self.text, self.at)):
            raise InvalidRegexp("invalid group")
        else:
            self.at = opening.end()
            self.set_flags(opening[2] or "", on=True)
            self.set_flags((opening[3] or "")[1:], on=False)
            if opening[4] == ")":
                return []
        node = self.alternatives(depth + 1)
        if not self.accept(")"):
            raise InvalidRegexp("missing )")
        self.flags = outer
        return [node]

    def set_flags(self, letters: str, *, on: bool) -> None:
        self.flags = replace(self.flags, **dict.fromkeys(letters.replace("U", ""), on))

    def escape(self) -> list[Node]:
        letter = self.text[self.at + 1 : self.at + 2]
        if letter == "Q":
            quoted, _, _ = self.text[self.at + 2 :].partition("\\E")
            self.at = min(self.at + len(quoted) + 4, len(self.text))
            return [self.literal(char) for char in quoted]
        if letter in LOOKS:
            self.at += 2
            return [LOOKS[letter]]
        if test := self.class_escape():
            return [Char(_folded(test) if self.flags.i else test)]
        return [self.literal(self.char_escape())]

    def class_escape(self) -> Test | None:
        r"""Read ``\d``, ``\pL`` and their like, if one stands here."""
        letter = self.text[self.at + 1 : self.at + 2]
        if letter and letter.lower() in PERL:
            self.at += 2
            test = _within(PERL[letter.lower()])
            return _not(test) if letter.isupper() else test
        if not letter or letter not in "pP":
            return None
        if not (named := PROPERTY.match(self.text, self.at)):
            raise InvalidRegexp("invalid property")
        self.at = named.end()
        name = named[3] or named[4]
        if name != "Any" and name not in CATEGORIES:
            raise InvalidArgument(
                f"regular expression: \\p{{{name[:20]}}} is not supported, only general categories are"
            )
        test = _in_category("" if name == "Any" else name)
        return _not(test) if (named[1] == "P") != bool(named[2]) else test

    def char_escape(self) -> str:
        """Read an escape that stands for one character."""
        if number := NUMBER.match(self.text, self.at):
            self.at = number.end()
            code = int(number[3], 8) if number[3] else int(number[1] or number[2], 16)
            if code > 0x10FFFF:
                raise InvalidRegexp("invalid escape")
            return chr(code)
        letter = self.text[self.at + 1 : self.at + 2]
        self.at += 2
        if letter in ESCAPES:
            return ESCAPES[letter]
        if not letter or not letter.isascii() or letter.isalnum():
            raise InvalidRegexp("invalid escape")
        return letter

    def bracket(self) -> Test:
        """Read a class in brackets; a ] that stands first is a member."""
        self.at += 1
        negated = self.accept("^")
        ranges: list[Range] = []
        tests: list[Test] = []
        first = True
        while first or not self.accept("]"):
            first = False
            if posix := POSIX_CLASS.match(self.text, self.at):
                self.at = posix.end()
                if posix[2] not in POSIX:
                    raise InvalidRegexp("invalid character class")
                test = _within(POSIX[posix[2]])
                tests.append(_not(test) if posix[1] else test)
            elif self.text.startswith("\\", self.at) and (escaped := self.class_escape()):
                tests.append(escaped)
            else:
                ranges.append(self.range())
        if ranges:
            tests.append(_within(ranges))
        test = tests[0] if len(tests) == 1 else lambda char: any(test(char) for test in tests)
        if self.flags.i:
            test = _folded(test)
        return _not(test) if negated else test

    def range(self) -> Range:
        low = self.member()
        if not self.text.startswith("-", self.at) or self.text.startswith("-]", self.at):
            return low, low
        self.at += 1
        high = self.member()
        if high < low:
            raise InvalidRegexp("invalid range")
        return low, high

    def member(self) -> str:
        if self.at >= len(self.text):
            raise InvalidRegexp("missing ]")
        if self.text[self.at] == "\\":
            return self.char_escape()
        self.at += 1
        return self.text[self.at - 1]

    def accept(self, char: str) -> bool:
        found = self.text.startswith(char, self.at)
        self.at += found
        return found


def _repeat(node: Node, least: int, most: int | None) -> Repeat:
    if _count(node) * max(least, most or 0) > MAX_REPEAT:
        raise InvalidRegexp("invalid repeat count")
    return Repeat(node, least, most)


def _count(node: Node) -> int:
    """Return how often the innermost part of ``node`` is repeated."""
    if isinstance(node, Repeat):
        return _count(node.node) * max(node.least, node.most or 0, 1)
    if isinstance(node, Concat | Choice):
        return max(map(_count, node.parts), default=1)
    return 1


@dataclass(frozen=True, slots=True)
class Split:
    """Goes on at each of ``targets``."""

    targets: tuple[int, ...]


MATCH = 0
"""Where a program ends; its first instruction."""


class _Program:
    """Instructions made from the end backwards: each knows where it goes on."""

    def __init__(self, node: Node) -> None:
        self.instructions: list[tuple[Char | Look, int] | Split] = [Split(())]
        self.start = self.emit(node, MATCH)

    def add(self, instruction: tuple[Char | Look, int] | Split) -> int:
        if len(self.instructions) >= MAX_PROGRAM:
            raise InvalidArgument(f"regular expression needs more than {MAX_PROGRAM} states; repeat less")
        self.instructions.append(instruction)
        return len(self.instructions) - 1

    def emit(self, node: Node, after: int) -> int:
        """Append what matches ``node`` and then goes on at ``after``; return where it starts."""
        if isinstance(node, Concat):
            for part in reversed(node.parts):
                after = self.emit(part, after)
            return after
        if isinstance(node, Choice):
            return self.add(Split(tuple(self.emit(part, after) for part in node.parts)))
        if isinstance(node, Repeat):
            return self.emit_repeat(node, after)
        return self.add((node, after))

    def emit_repeat(self, repeat: Repeat, after: int) -> int:
        end = after
        if repeat.most is None:
            after = self.add(Split(()))
            self.instructions[after] = Split((self.emit(repeat.node, after), end))
        for _ in range((repeat.most or repeat.least) - repeat.least):
            after = self.add(Split((self.emit(repeat.node, after), end)))
        for _ in range(repeat.least):
            after = self.emit(repeat.node, after)
        return after


@dataclass(slots=True, eq=False)
class State:
    """A deterministic state: where the program may be, and what kind of character came before."""

    places: frozenset[int]
    before: str
    following: dict[str, State] = field(default_factory=dict)
    """By character, as far as they have been met; "" is the end."""


MATCHED = State(frozenset({MATCH}), EDGE)
"""Follows when the text so far contains a match."""


class Regexp:
    """A compiled pattern; may be used by several threads.

    Raises InvalidRegexp for a pattern that is none, InvalidArgument for one that is too large.
    """

    def __init__(self, pattern: str) -> None:
        self._program = _Program(_Parser(pattern).parse())
        self._forget()

    def search(self, text: str) -> bool:
        """Return whether the pattern matches anywhere in ``text``."""
        state = self._first
        for char in text:
            state = state.following.get(char) or self._step(state, char)
            if state is MATCHED:
                return True
        return (state.following.get("") or self._step(state, "")) is MATCHED

    def _forget(self) -> None:
        self._steps = 0
        self._states: dict[tuple[frozenset[int], str], State] = {}
        self._first = State(frozenset(), EDGE)

    def _step(self, state: State, char: str) -> State:
        """Find the state after ``char`` and remember it."""
        if self._steps >= MAX_STEPS:
            self._forget()
        self._steps += 1
        after = _kind(char)
        places = self._closure(state, after)
        following = MATCHED
        if MATCH not in places:
            reached = self._advance(places, char)
            following = self._states.setdefault((reached, after), State(reached, after))
        state.following[char] = following
        return following

    def _closure(self, state: State, after: str) -> set[int]:
        """Return every place that is reached without a character; a search may begin anywhere."""
        seen: set[int] = set()
        pending = [*state.places, self._program.start]
        while pending:
            place = pending.pop()
            if place in seen:
                continue
            seen.add(place)
            instruction = self._program.instructions[place]
            if isinstance(instruction, Split):
                pending += instruction.targets
            elif isinstance(instruction[0], Look) and instruction[0].holds(state.before, after):
                pending.append(instruction[1])
        return seen

    def _advance(self, places: set[int], char: str) -> frozenset[int]:
        """Return where the program goes on when ``char`` is consumed, nowhere at the end."""
        reached = set()
        for place in places:
            instruction = self._program.instructions[place]
            if char and isinstance(instruction, tuple):
                item, target = instruction
                if isinstance(item, Char) and item.test(char):
                    reached.add(target)
        return frozenset(reached)
