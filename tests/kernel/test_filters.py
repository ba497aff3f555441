"""The filter language: containerd's answers, positions in errors, hostile input."""

from __future__ import annotations

import ast
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.errors import InvalidArgument
from windlass.filters.expressions import ABSENT, Adaptor, label_of, parse, value_of

LABELS = {
    "A": {
        "name": "foo",
        "a.b": "x.y",
        "slash/key": "v,w",
        "uni": "é",
        "dig": "a1",
        "bs": "a\\d",
        "sp": "foo bar",
    },
    "B": {"name": "bar", "empty2": "1"},
}
TABLE = Path(__file__).with_name("filters_of_containerd.txt").read_text(encoding="utf-8").splitlines()
ROWS = [line.split("\t") for line in TABLE if not line.startswith("#")]

quick = settings(max_examples=300, deadline=None, database=None)


def blob(digest: str, labels: Mapping[str, str]) -> Adaptor:
    def answer(fieldpath: Sequence[str]) -> tuple[str, bool]:
        match fieldpath[0]:
            case "digest":
                return value_of(digest)
            case "labels":
                return label_of(labels, fieldpath)
            case _:
                return ABSENT

    return answer


def matching(*filters: str) -> str:
    accepts = parse(filters)
    return " ".join(name for name, labels in LABELS.items() if accepts(blob(f"sha256:{name}", labels)))


@pytest.mark.parametrize(("literal", "answer"), ROWS)
def test_answers_are_containerds(literal: str, answer: str) -> None:
    """The file says how they were obtained."""
    filter = ast.literal_eval(literal)

    if answer.startswith("! "):
        with pytest.raises(InvalidArgument) as raised:
            parse([filter])
        # The shell that made the file did not keep spaces at the end.
        assert str(raised.value).split() == answer[2:].split()
    else:
        assert matching(filter) == answer


def test_strings_are_alternatives_and_commas_are_and() -> None:
    assert matching("labels.name==foo", "labels.name==bar") == "A B"
    assert matching("labels.name==foo,labels.dig==a1") == "A"
    assert matching("labels.name==bar,labels.dig==a1") == ""


@pytest.mark.parametrize("filters", [[], [""], ["labels.name==foo", ""]])
def test_no_filter_matches_everything(filters: list[str]) -> None:
    assert matching(*filters) == "A B"


@pytest.mark.parametrize(
    ("filter", "position"),
    [
        ("labels.name?", "labels.name >|?|< "),
        ("labels.é==é", "labels. >|é|< ==é"),
        ("a==b,", "a==b,"),
        ("name==" + "x" * 100 + " y", ">| |< y"),
        ("a" * 100 + "?", "…" + "a" * 60 + " >|?|< "),
    ],
)
def test_error_marks_the_position(filter: str, position: str) -> None:
    with pytest.raises(InvalidArgument, match="parse error") as raised:
        parse([filter])
    assert position in str(raised.value)


@pytest.mark.parametrize(
    "filter", [r'name=="\400"', r'name=="\U00110000"', 'name=="a\nb"', 'name=="a\\\nb"', 'name=="\\']
)
def test_strings_that_go_refuses_are_refused(filter: str) -> None:
    with pytest.raises(InvalidArgument):
        parse([filter])


def test_bytes_that_are_no_text_match_nothing() -> None:
    """Go compares bytes; no stored string has these."""
    assert matching(r'labels.name=="\xff"', r'labels.name=="\ud800"') == ""
    assert matching(r'labels.uni=="\303\251"') == "A"


def test_present_label_may_be_read_though_it_is_empty() -> None:
    accepts = parse(["labels.k"])
    assert accepts(blob("", {"k": ""}))
    assert not accepts(blob("", {}))


def test_amount_of_filters_is_limited() -> None:
    with pytest.raises(InvalidArgument, match="too many"):
        parse(["a"] * 10_001)
    with pytest.raises(InvalidArgument, match="longer than"):
        parse(["a" * 70_000])


@pytest.mark.parametrize(
    "filter",
    [
        "labels.name~=/" + "(" * 5000 + "/",
        "labels.name~=" + "(a{9}" * 50 + ")" * 50,
        "labels.name~=((a{100}){10}b{900}c{900})",
    ],
)
def test_regular_expression_that_is_too_large_is_refused_or_matches_nothing(filter: str) -> None:
    try:
        assert matching(filter) == ""
    except InvalidArgument:
        pass


def test_catastrophic_patterns_are_answered_at_once() -> None:
    """A backtracking matcher needs longer than the universe has been there."""
    labels = {"k": "a" * 4000 + "!"}
    started = time.monotonic()
    for pattern in ("(a+)+$", "^(a|aa)*$", "(.*)*x", "(a|a)*b", "a*a*a*a*a*a*b"):
        assert not parse([f"labels.k~={pattern}"])(blob("", labels))
    assert time.monotonic() - started < 2


@quick
@given(st.lists(st.text(), max_size=3))
def test_any_text_is_parsed_or_refused(filters: list[str]) -> None:
    accepts_or_refuses(filters)


WORDS = r"""labels name . == != ~= = ! ~ , " / | \ a é ( ) [ ] * + ? { } 1 ^ $ \x \u00e9 \p (?i) [[: :]] -"""
TOKENS = st.sampled_from([*WORDS.split(), " ", "\x00", "\ud800"])


@quick
@given(st.lists(TOKENS, max_size=25).map("".join))
def test_any_row_of_tokens_is_parsed_or_refused(filter: str) -> None:
    accepts_or_refuses([filter])


@quick
@given(st.lists(TOKENS, max_size=20).map("".join))
def test_any_regular_expression_is_searched_or_refused(pattern: str) -> None:
    quoted = pattern.replace("\\", "\\\\").replace('"', '\\"')
    accepts_or_refuses([f'labels.name~="{quoted}"'])


@quick
@given(key=st.text(min_size=1), value=st.text())
def test_quoted_key_and_value_are_found_again(key: str, value: str) -> None:
    def quote(text: str) -> str:
        return '"' + "".join(f"\\U{ord(char):08x}" for char in text) + '"'

    accepts = parse([f"labels.{quote(key)}=={quote(value)}"])
    assert accepts(blob("", {key: value}))
    assert not accepts(blob("", {key: value + "x"}))


def accepts_or_refuses(filters: list[str]) -> None:
    try:
        accepts = parse(filters)
    except InvalidArgument as error:
        assert str(error)
        return
    for name, labels in LABELS.items():
        assert accepts(blob(name, labels)) in (True, False)
