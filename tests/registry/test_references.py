"""Promises of references: what can be asked for is read, everything else refused in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.errors import InvalidArgument
from windlass_registry import references

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("docker.io/library/busybox:1", ("docker.io", "library/busybox", "1", "")),
        ("localhost:5000/app:latest", ("localhost:5000", "app", "latest", "")),
        ("[::1]:5000/app:latest", ("[::1]:5000", "app", "latest", "")),
        (f"a.test/b/c@{DIGEST}", ("a.test", "b/c", "", DIGEST)),
        (f"a.test/b/c:1@{DIGEST}", ("a.test", "b/c", "1", DIGEST)),
        ("a.test/b__c/d-e.f:V1_2-3.4", ("a.test", "b__c/d-e.f", "V1_2-3.4", "")),
    ],
)
def test_a_reference_has_a_registry_a_repository_and_an_object(text: str, parts: tuple[str, ...]) -> None:
    found = references.parse(text)

    assert (found.host, found.repository, found.tag, found.digest) == parts
    assert str(found) == text


@pytest.mark.parametrize(
    ("host", "name"), [("docker.io", "docker.io"), ("localhost:5000", "localhost"), ("[::1]:5000", "::1")]
)
def test_a_host_has_a_name_without_its_port(host: str, name: str) -> None:
    """By which labels tell where blobs come from, as containerd's do."""
    assert references.parse(f"{host}/app:1").hostname == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "busybox",
        "busybox:1",
        "a.test/app",
        "https://a.test/app:1",
        "a.test/App:1",
        "a.test/app:",
        f"a.test/app:@{DIGEST}",
        "a.test/app:1@",
        "a.test//app:1",
        "a.test/app/../x:1",
        "a.test/app:1:2",
        "a.test/app@sha256:abc",
        f"a.test/app@md5:{'a' * 32}",
        "a.test/app:" + "x" * 129,
        "a.test/" + "x" * 600 + ":1",
        "user@a.test/app:1",
        "a.test/app:1\n",
        "a.test/app:1?x=y",
        "a.test:99999/app:1",
        "[::::]/app:1",
        "[1.2.3.4]:5000/app:1",
        "/app:1",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        references.parse(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=80))
def test_whatever_is_accepted_is_written_back_as_it_was(text: str) -> None:
    try:
        found = references.parse(text)
    except InvalidArgument:
        return
    assert str(found) == text
