"""YAML with lines, within bounds; variables, and files of variables."""

from __future__ import annotations

import pytest

from windlass.errors import InvalidArgument
from windlass_client.compose import dotenv
from windlass_client.compose.interpolation import BadVariable, Variables, interpolate
from windlass_client.compose.parse import parse
from windlass_client.compose.values import Items, Scalar, Section


def bomb() -> str:
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"{to}: &{to} [{', '.join([f'*{of}'] * 10)}]" for of, to in zip("abcdefgh", "bcdefghi", strict=True)]
    return "\n".join(lines)


def test_values_know_their_line() -> None:
    """A value is at its key, also where it begins on the next line."""
    services = parse("services:\n  web:\n    ports:\n    - 80\n", "c.yaml").entries["services"]
    assert isinstance(services, Section)
    web = services.entries["web"]
    assert isinstance(web, Section)
    ports = web.entries["ports"]
    assert isinstance(ports, Items)
    assert (str(web.at), str(ports.at), str(ports.items[0].at)) == ("c.yaml:2", "c.yaml:3", "c.yaml:4")


@pytest.mark.parametrize("text", ["0644", "22:22", "yes", "1.10", "2026-01-01", "0x10"])
def test_a_plain_word_stays_what_was_typed(text: str) -> None:
    """YAML would make numbers, dates and truth of these."""
    value = parse(f"a: {text}", "c.yaml").entries["a"]
    assert isinstance(value, Scalar) and value.text == text


def test_nothing_is_not_empty_text() -> None:
    """A key without a value takes it from elsewhere."""
    found = parse("a:\nb: ''\nc: ~\n", "c.yaml").entries
    assert [each.text for each in found.values() if isinstance(each, Scalar)] == [None, "", None]


def test_anchors_and_merge_keys() -> None:
    """What is said itself is stronger than what is merged, and the first merged than the next."""
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], a: 0}\n"
    value = parse(text, "c.yaml").entries["z"]
    assert isinstance(value, Section)
    assert {key: each.text for key, each in value.entries.items() if isinstance(each, Scalar)} == {
        "a": "0",
        "b": "1",
        "c": "2",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (bomb(), "f:5: with its aliases the file has more than 100000 values"),
        ("a: &x [*x]", "f:1: alias *x names no anchor before it"),
        ("[" * 100_000, "f:1: nested more than 64 levels deep"),
        ("a: 1\na: 2", "f:2: key 'a' is there twice, first on line 1; remove one"),
        ("a: !!python/object/apply:os.system [id]", "f:1: tag 'tag:yaml.org,2002:python/object/apply:os.system' is"),
        ("a: {b", "f:1: not valid YAML: expected ',' or '}'"),
        ("a: 1\n---\nb: 2", "f:2: a second YAML document"),
        ("? [a]\n: b", "f:1: a key must be text"),
        ("- a", "f:1: a compose file must be a mapping"),
        ("a: \x01", "f: not valid YAML"),
        ("", "f:1: a compose file must be a mapping"),
        ("a: {<<: 1}", "f:1: << must name a mapping"),
    ],
)
def test_what_is_not_a_mapping_within_bounds_is_refused(text: str, problem: str) -> None:
    """One line, with the place."""
    with pytest.raises(InvalidArgument) as caught:
        parse(text, "f")
    assert str(caught.value).startswith(problem) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$A$$B", "1$B"),
        ("${A}", "1"),
        ("${A:-x}${E:-x}${E-x}${N-x}", "1xx"),
        ("${N:-${A}${N:-{}}}", "1{}"),
        ("${A:+y}${E:+y}${E+y}${N+y}", "yy"),
        ("${A:?must}${E?must}", "1"),
        ("$N-", "-"),
    ],
)
def test_variables_are_replaced(text: str, result: str) -> None:
    """The operators are the specification's."""
    assert Variables({"A": "1", "E": ""}).replace(text) == result


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${N:?name it}", "variable N is not set: name it; set it in the environment or in .env"),
        ("${E:?}", "variable E is not set: a value is required"),
        ("$", "a $ that begins no variable; write $$"),
        ("$1", "a $ that begins no variable"),
        ("${A", "${ without its }"),
        ("${A!x}", "has an unknown operator; known are :-"),
        ("${}", "names no variable"),
        ("${A:-" * 30 + "}" * 30, ""),
        ("${N:-" * 30 + "}" * 30, "nested more than 20 levels"),
        ("$L" * 3, "longer than 1 MiB"),
    ],
)
def test_variables_that_cannot_be_replaced(text: str, problem: str) -> None:
    """The message says what is wrong with it."""
    variables = Variables({"A": "1", "E": "", "L": "x" * (1 << 19)})
    if not problem:
        variables.replace(text)
        return
    with pytest.raises(BadVariable) as caught:
        variables.replace(text)
    assert problem in str(caught.value)


def test_a_variable_that_is_not_set_is_empty_and_remembered() -> None:
    """The user is warned of it; what `x-` keys hold is not looked at."""
    variables = Variables({})
    document = parse("x-a: $B\nservices: {web: {image: $A}}", "c.yaml")
    interpolate(document, variables)
    assert list(variables.missing) == ["A"]
    with pytest.raises(InvalidArgument, match=r"^c.yaml:1: services.web.image: variable A is not set: so"):
        interpolate(parse("services: {web: {image: '${A:?so}'}}", "c.yaml"), variables)


def test_a_file_of_variables() -> None:
    """Quotes, comments, references, and variables of the environment."""
    text = """
# comment
export A=1 # one
B="x\\n\\$y $A"
C='$A
two'  # lines
D=${H:-q}#no
HOME
MISSING
E: v
F=
"""
    found = dotenv.parse(text, ".env", {"HOME": "/root", "H": "h"})
    assert found == {"A": "1", "B": "x\n$y 1", "C": "$A\ntwo", "D": "h#no", "HOME": "/root", "E": "v", "F": ""}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A=1\n=2", ".env:2: not of the form KEY=value"),
        ("A='x", ".env:1: a ' without its end"),
        ('A="x" y', ".env:1: 'y' after the value"),
        ("\n\nA=${B:?no}", ".env:3: variable B is not set: no"),
    ],
)
def test_a_line_that_is_no_variable(text: str, problem: str) -> None:
    """It is named by file and line."""
    with pytest.raises(InvalidArgument) as caught:
        dotenv.parse(text, ".env", {})
    assert str(caught.value).startswith(problem)
