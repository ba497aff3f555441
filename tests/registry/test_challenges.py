"""Promises of challenges: what a registry asks for is found, and nothing it sends costs more than its length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass_registry import challenges
from windlass_registry.challenges import Challenge


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (['Basic realm="x"'], [Challenge("basic", {"realm": "x"})]),
        (
            ['Bearer realm="https://a.test/token",service="a, b",scope="repository:x:pull,push"'],
            [
                Challenge(
                    "bearer",
                    {"realm": "https://a.test/token", "service": "a, b", "scope": "repository:x:pull,push"},
                )
            ],
        ),
        (["BASIC Realm=x"], [Challenge("basic", {"realm": "x"})]),
        (["Basic"], [Challenge("basic")]),
        (
            ['Basic realm="x", Bearer realm="y"'],
            [Challenge("bearer", {"realm": "y"}), Challenge("basic", {"realm": "x"})],
        ),
        (
            ['Basic realm="x"', "Bearer realm=y"],
            [Challenge("bearer", {"realm": "y"}), Challenge("basic", {"realm": "x"})],
        ),
        (["Negotiate", "NTLM abc==, Basic realm=z"], [Challenge("basic", {"realm": "z"})]),
        ([r'Basic realm="a \"quoted\" b"'], [Challenge("basic", {"realm": 'a "quoted" b'})]),
        (["", "=", '"', "Bearer realm"], [Challenge("bearer")]),
        (['Digest realm="x", nonce="y"'], []),
    ],
)
def test_challenges_are_read_and_bearer_comes_first(headers: list[str], found: list[Challenge]) -> None:
    assert challenges.parse(headers) == found


@given(st.lists(st.text(max_size=200), max_size=5))
def test_nothing_makes_it_fail(headers: list[str]) -> None:
    assert all(challenge.scheme in ("bearer", "basic") for challenge in challenges.parse(headers))
