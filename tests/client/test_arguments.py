"""Sizes, as `windlass run` reads them."""

from __future__ import annotations

import pytest

from windlass.errors import InvalidArgument
from windlass_client.arguments import parse_size


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("64M", 64 << 20), ("1g", 1 << 30), ("2KiB", 2048), ("3kb", 3072)]
)
def test_sizes(text: str, size: int) -> None:
    """Units are powers of 1024."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1x", "1.5G", "M", "9" * 40])
def test_bad_sizes(text: str) -> None:
    """Anything else is no size."""
    with pytest.raises(InvalidArgument, match="size"):
        parse_size(text)
