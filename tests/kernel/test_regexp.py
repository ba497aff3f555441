"""Regular expressions: RE2's language, the same answers as `re` where the two agree."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.errors import InvalidArgument
from windlass.filters import regexp
from windlass.filters.regexp import InvalidRegexp, Regexp


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("", "", True),
        ("^$", "", True),
        ("^a$", "a\n", False),
        ("(?m)^b$", "a\nb\nc", True),
        ("^b$", "a\nb\nc", False),
        ("a.b", "a\nb", False),
        ("(?s)a.b", "a\nb", True),
        ("(?s:a.)b|c.d", "c\nd", False),
        (r"\bfoo\b", "a foo b", True),
        (r"\bfoo\b", "afoo", False),
        (r"\Boo\b", "foo", True),
        (r"^\d{2,3}$", "1234", False),
        (r"^\d{2,}$", "1234", True),
        ("^(ab|cd)+$", "abcdab", True),
        ("^(ab|cd)+$", "abc", False),
        ("x{2}y?z*", "axx", True),
        ("a{,2}", "a{,2}", True),
        ("[^a-c]", "abcabc", False),
        ("[^a-c]", "\n", True),
        (r"[\]\-^]", "-", True),
        ("(?i)straße", "STRAßE", True),
        ("(?i)[k]", "\u212a", True),
        ("(?i)[^k]", "K", False),
        (r"\pL\p{Nd}\PL", "é5-", True),
        (r"\p{^L}", "abc", False),
        (r"[[:^space:]]", "\n\t ", False),
        (r"\x{1F600}\.\101", "😀.A", True),
        (r"\Qa.b\E+", "a.bbb", True),
        (r"\Qa.b\E", "axb", False),
        ("(?P<name>x)(?:y)", "xy", True),
        ("(a*)*b", "aaab", True),
        ("(a*)+$", "", True),
        ("((a?){3}){3}b", "aab", True),
    ],
)
def test_patterns_are_found(pattern: str, text: str, found: bool) -> None:
    assert Regexp(pattern).search(text) is found


REFUSED = r"""
    ( ) [ [] [^] * a** a{2}{3} a{1001} a{2,1} (a{100}){11} (?=a) (?P=n) (?x)a (?
    \ \1 \Z \C \q \é \p \p{ \x{110000} [b-a] [a-\d] [[:nope:]]
"""


@pytest.mark.parametrize("pattern", REFUSED.split())
def test_what_re2_refuses_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidRegexp):
        Regexp(pattern)


@pytest.mark.parametrize("pattern", [r"\p{Greek}", "(a{10}b{10}){60}c{999}", "(" * 101 + ")" * 101])
def test_what_is_too_much_for_us_is_told(pattern: str) -> None:
    """RE2 would take these, so that matching nothing would be a wrong answer."""
    with pytest.raises(InvalidArgument):
        Regexp(pattern)


def test_empty_groups_repeated_for_ever_are_refused_at_once() -> None:
    with pytest.raises(InvalidRegexp):
        Regexp("((((){1000}){1000}){1000}){1000}")


def test_states_are_forgotten_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the answers stay the same."""
    monkeypatch.setattr(regexp, "MAX_STEPS", 5)
    pattern = Regexp("[ab]*a[ab]{4}c$")
    for text in ("abbabac", "ababababababc", "bbbbbbbc", "aabbbbc"):
        assert pattern.search(text) is bool(re.search("[ab]*a[ab]{4}c$", text))
    assert pattern._steps <= 5


def test_pattern_is_shared_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regexp, "MAX_STEPS", 20)
    pattern = Regexp("(foo|bar)+[0-9]{3}x")
    texts = [f"{'foobar' * (number % 5)}foo{number:03d}{'x' if number % 2 else 'y'}" for number in range(400)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(pattern.search, texts)) == [number % 2 == 1 for number in range(400)]


atoms = st.sampled_from(["a", "b", "c", ".", "[ab]", "[^a]", r"\w", r"\d", r"\b", "^", "a1", r"\.", "(?i:A)", "\n"])
patterns = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None, database=None)
@given(patterns, st.text("abcA1. \n", max_size=8))
def test_answers_are_those_of_re(pattern: str, text: str) -> None:
    assert Regexp(pattern).search(text) is bool(re.search(pattern, text, re.ASCII)), (pattern, text)
