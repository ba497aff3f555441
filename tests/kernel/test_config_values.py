"""TOML tables as dataclasses: every kind of field, and for every mistake one line that says where and what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

import pytest

from windlass.config.toml import Mark, parse
from windlass.config.validate import (
    ERROR,
    NOTE,
    WARNING,
    ConfigError,
    Problem,
    Reader,
    describe,
    did_you_mean,
    raise_errors,
)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    """A table in a table."""

    size: int
    name: str = ""


@dataclass(frozen=True)
class Everything:
    """A field of every kind that there is."""

    flag: bool = False
    count: int = 0
    share: float = 0.0
    name: str = ""
    place: Path = Path()
    colour: Colour = Colour.RED
    mode: Literal["rw", "ro"] = "rw"
    words: tuple[str, ...] = ()
    numbers: list[int] = field(default_factory=list)
    parts: Sequence[Inner] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    inner: Inner | None = None
    either: int | str = 0
    anything: object = None
    made: int = field(default=7, init=False)


@dataclass(frozen=True)
class Port:
    """What a class cannot say by types."""

    number: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.number < 65536:
            raise ValueError(f"number {self.number} is not a port")


def problems(text: str, kind: type[object] = Everything) -> list[str]:
    """Return what is wrong, by line and message."""
    reader = Reader()
    assert (reader.read(kind, parse(text, "c.toml")) is None) == bool(reader.problems)
    return [str(problem) for problem in reader.problems]


def read(text: str) -> Everything:
    reader = Reader()
    found = reader.read(Everything, parse(text, "c.toml"))
    assert found is not None, reader.problems
    return found


def test_without_keys_there_are_defaults() -> None:
    assert read("") == Everything()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flag = true", Everything(flag=True)),
        ("count = -3", Everything(count=-3)),
        ("share = 0.5", Everything(share=0.5)),
        ("share = 2", Everything(share=2.0)),
        ('name = "x"', Everything(name="x")),
        ('place = "/run/x"', Everything(place=Path("/run/x"))),
        ('colour = "blue"', Everything(colour=Colour.BLUE)),
        ('mode = "ro"', Everything(mode="ro")),
        ('words = ["a", "b"]', Everything(words=("a", "b"))),
        ("words = []", Everything()),
        ("numbers = [1, 2]", Everything(numbers=[1, 2])),
        ("[[parts]]\nsize = 1\n[[parts]]\nsize = 2\n", Everything(parts=[Inner(1), Inner(2)])),
        ("[sizes]\na = 1\nb = 2\n", Everything(sizes={"a": 1, "b": 2})),
        ('[inner]\nsize = 3\nname = "x"\n', Everything(inner=Inner(3, "x"))),
        ("either = 1", Everything(either=1)),
        ('either = "one"', Everything(either="one")),
        ('anything = ["of", 2, "kinds"]', Everything(anything=["of", 2, "kinds"])),
    ],
)
def test_each_kind_of_field(text: str, expected: Everything) -> None:
    """The value arrives as the class has it, and of the type that the class says."""
    found = read(text)

    assert found == expected
    key = text.split()[0].strip("[]").partition("\n")[0]
    assert type(getattr(found, key)) is type(getattr(expected, key))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("flag = 1", 1, '"flag" must be true or false, not 1'),
        ("\ncount = true", 2, '"count" must be an integer, not true'),
        ("count = 1.5", 1, '"count" must be an integer, not the number 1.5'),
        ('share = "0.5"', 1, '"share" must be a number, not the string "0.5"'),
        ("name = 7", 1, '"name" must be a string, not 7'),
        ("place = []", 1, '"place" must be a path in quotes, not a list'),
        ('colour = "rde"', 1, '"colour" must be one of "red", "blue", not the string "rde"; did you mean "red"?'),
        ('mode = "wx"', 1, '"mode" must be one of "rw", "ro", not the string "wx"'),
        ('words = "a"', 1, '"words" must be a list, not the string "a"'),
        ('numbers = [1, "2"]', 1, '"numbers[1]" must be an integer, not the string "2"'),
        ("sizes = 1", 1, '"sizes" must be a table, not 1'),
        ('[sizes]\na = 1\nb = "2"', 3, '"b" in [sizes] must be an integer, not the string "2"'),
        ("inner = 1", 1, '"inner" must be a table, not 1'),
        ('[inner]\nname = "x"', 1, '"size" in [inner] is missing'),
        ("[inner]\nsize = 1\nsiez = 2", 3, 'unknown key "siez" in [inner]; did you mean "size"?'),
        ("[[parts]]\nsize = 1\n[[parts]]\nsize = []", 4, '"size" in [parts[1]] must be an integer, not a list'),
        ("either = true", 1, '"either" must be a string, not true'),
        ("nothing_like_it = 1", 1, 'unknown key "nothing_like_it"; known here: anything, colour, count'),
        ("made = 1", 1, 'unknown key "made"'),
        ('name = "a\\u0000b"', 1, '"name" must not contain a NUL'),
        ('place = "/run/\\u0000"', 1, '"place" must not contain a NUL'),
    ],
)
def test_a_mistake_is_one_line_with_its_place(text: str, line: int, words: str) -> None:
    """File, line, key, what is there and what should be."""
    [problem] = problems(text)

    assert problem.startswith(f"c.toml:{line}: ")
    assert words in problem
    assert "\n" not in problem


def test_every_mistake_is_found_in_one_run() -> None:
    """An operator mends a file once, and not as often as it has mistakes."""
    found = problems('flag = 1\ncount = "x"\n[inner]\nsize = true\nnope = 1\n[sizes]\na = "b"\n')

    assert [each.split(":")[1] for each in found] == ["1", "2", "4", "5", "7"]


def test_what_a_class_refuses_by_itself_is_told_at_its_table() -> None:
    """`__post_init__` need not know of files."""
    assert problems("number = 70000", Port) == ["c.toml:1: number 70000 is not a port"]
    assert problems("number = 80", Port) == []


def test_a_defect_of_a_class_is_not_a_mistake_of_the_operator() -> None:
    """What is no ValueError comes out as it is."""

    @dataclass(frozen=True)
    class Broken:
        x: int = 0

        def __post_init__(self) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Reader().read(Broken, parse("", "c.toml"))


def test_unknown_keys_may_be_judged_otherwise() -> None:
    """A warning does not keep the table from being read."""
    reader = Reader(lambda path, mark, choices: Problem(WARNING, mark, f"{'.'.join(path)} of {len(choices)}"))

    found = reader.read(Port, parse("number = 2\nother = 3\n", "c.toml"), ("plugins", "x"))

    assert found == Port(2)
    assert [(each.severity, str(each)) for each in reader.problems] == [(WARNING, "c.toml:2: plugins.x.other of 1")]


def test_only_errors_end_the_daemon() -> None:
    """Warnings and notes are for the log; the exception has the errors alone, a line each."""
    warning, note = Problem(WARNING, Mark("a", 1), "w"), Problem(NOTE, Mark("a", 2), "n")
    one, two = Problem(ERROR, Mark("a", 3), "one"), Problem(ERROR, Mark("b", 4), "two")

    raise_errors([])
    raise_errors([warning, note])
    with pytest.raises(ConfigError) as caught:
        raise_errors([one, warning, two, note])

    assert caught.value.problems == (one, two)
    assert str(caught.value) == "a:3: one\nb:4: two"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("adress", '; did you mean "address"?'),
        ("ADDRESS", '; did you mean "address"?'),
        ("maxsize", '; did you mean "maxSize"?'),
        ("something else", ""),
        ("", ""),
    ],
)
def test_a_slip_is_recognised(key: str, hint: str) -> None:
    """Case does not matter, and the suggestion is spelled as it has to be written."""
    assert did_you_mean(key, ["address", "maxSize", "uid"]) == hint


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "true"),
        (7, "7"),
        (1e100, "the number 1e+100"),
        ("x" * 40, f'the string "{"x" * 40}"'),
        ("x" * 41, f'the string "{"x" * 40}"…'),
        ([1], "a list"),
        ({}, "a table"),
    ],
)
def test_a_value_in_an_operators_words(value: object, words: str) -> None:
    """However long it is, the line stays short."""
    assert describe(value) == words
