"""TOML with lines and comments: positions are right and nothing is lost on the way back."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.config.toml import SyntaxProblem, parse, render

TEXT = (
    '''# head
version = 2 # two
list = [
  "a", # first
  "]", # second
]
long = """
[not.a.header]
x = 1
"""

# about plugins
[plugins]
  # about x
  [plugins."io.x.v1.y"] # beside
    "quoted key" = 'it'''
    "'"
    + """
    a.b.c = { d = 1, e = [ { f = "#no" } ] }
[[plugins.t.rows]]
n = 1
[plugins.t.rows.sub]
m = 2
# about the second row
[[plugins.t.rows]]
n = 3
# tail
""".replace("'it''", "'it'")
)


def test_every_value_has_its_line() -> None:
    """Headers, dotted and quoted keys, arrays of tables and what comes after long values are placed."""
    table = parse(TEXT, "f")
    block = table["plugins"]["io.x.v1.y"]

    assert table.place("version").line == 2
    assert table.place("list").line == 3
    assert table.place("long").line == 7
    assert block.mark.line == 15
    assert block.place("quoted key").line == 16
    assert block["a"]["b"].place("c").line == 17
    assert [row.mark.line for row in table["plugins"]["t"]["rows"]] == [18, 23]
    assert table["plugins"]["t"]["rows"][0]["sub"].place("m").line == 21


def test_rendering_keeps_values_and_comments() -> None:
    """What is written back means the same and has every comment."""
    text = render(parse(TEXT, "f"))

    assert tomllib.loads(text) == tomllib.loads(TEXT)
    for comment in ("head", "two", "first", "second", "about plugins", "about x", "beside", "about the second", "tail"):
        assert f"# {comment}" in text


def test_rendering_twice_changes_nothing() -> None:
    """The rendered form is stable."""
    once = render(parse(TEXT, "f"))

    assert render(parse(once, "f")) == once


LEAVES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.dates(),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), VALUES, max_size=4))
@settings(max_examples=150, deadline=None)
def test_any_document_survives(values: dict[str, object]) -> None:
    """Any value that TOML can hold is rendered as TOML that holds it, also after a parse of our own."""
    text = render(values)

    assert tomllib.loads(text) == values
    assert parse(text, "f") == values
    assert tomllib.loads(render(parse(text, "f"))) == values


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb = \n", 2), ("a = 1\na = 2\n", 2), ("[x\n", 1), ("a = 1\n\n\nb = [1,\n2", 5), ("x = " + "[" * 20000, 1)],
)
def test_a_syntax_error_has_its_line(text: str, line: int) -> None:
    """Also at the end of the document, and for nesting that no parser takes."""
    with pytest.raises(SyntaxProblem) as error:
        parse(text, "f")

    assert error.value.mark.line == line
