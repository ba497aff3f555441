"""Field masks of label updates."""

from __future__ import annotations

import pytest

from windlass.errors import InvalidArgument
from windlass.filters.fieldpaths import selects, updated_labels, updated_map

CURRENT = {"a": "1", "b": "2", "c.d/e": "3"}


@pytest.mark.parametrize(
    ("changes", "fieldpaths", "result"),
    [
        ({"x": "9"}, (), {"x": "9"}),
        ({"x": "9"}, ("labels",), {"x": "9"}),
        ({}, (), {}),
        ({"x": "9", "a": ""}, (), {"x": "9"}),
        ({"a": "9", "x": "ignored"}, ("labels.a",), {**CURRENT, "a": "9"}),
        ({"a": ""}, ("labels.a",), {"b": "2", "c.d/e": "3"}),
        ({}, ("labels.b", "labels.unknown"), {"a": "1", "c.d/e": "3"}),
        ({"c.d/e": "new"}, ("labels.c.d/e",), {**CURRENT, "c.d/e": "new"}),
        ({"a": "9"}, ("labels", "labels.b"), {"a": "9"}),
    ],
)
def test_paths_say_which_labels_change(
    changes: dict[str, str], fieldpaths: tuple[str, ...], result: dict[str, str]
) -> None:
    """None or all of them, or one by one; empty values remove."""
    assert updated_labels(CURRENT, changes, fieldpaths, "image x") == result
    assert CURRENT == {"a": "1", "b": "2", "c.d/e": "3"}


@pytest.mark.parametrize("path", ["", "label", "labels.", "labelsx", "size", "digest", "Labels.a", "labels" * 1000])
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidArgument, match="of image x") as raised:
        updated_labels(CURRENT, {}, [path], "image x")
    assert len(str(raised.value)) < 300


def test_labels_that_are_too_long_are_refused() -> None:
    with pytest.raises(InvalidArgument):
        updated_labels({}, {"k": "v" * 4096}, (), "image x")


def test_other_maps_change_the_same_way() -> None:
    assert updated_map("annotations", {"a": "1"}, {"b": "2"}, ["annotations.b"], "image x") == {"a": "1", "b": "2"}
    assert selects("annotations.b", "annotations")
    assert selects("annotations", "annotations")
    assert not selects("annotationsx", "annotations")
