"""Mounts and sizes, as `windlass run` reads them."""

from __future__ import annotations

import pytest

from windlass.errors import InvalidArgument
from windlass_client.arguments import parse_mount, parse_size


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("src=/a,dst=/b", ("bind", "/a", "/b", ["rbind"])),
        ("type=bind,source=/a,destination=/b,options=bind:ro", ("bind", "/a", "/b", ["bind", "ro"])),
        ("src=/a,target=/b,readonly", ("bind", "/a", "/b", ["rbind", "ro"])),
        ("type=tmpfs,dst=/t,options=size=1m:mode=755", ("tmpfs", "tmpfs", "/t", ["size=1m", "mode=755"])),
        ('"src=/a,b",dst=/c', ("bind", "/a,b", "/c", ["rbind"])),
    ],
)
def test_mounts(text: str, mount: tuple[str, str, str, list[str]]) -> None:
    """Mounts are written as for ctr, and a bind needs no more than its two ends."""
    kind, source, destination, options = mount
    expected = {"type": kind, "source": source, "destination": destination, "options": options}
    assert parse_mount(text) == expected


@pytest.mark.parametrize("text", ["src=/a", "dst=/b", "src=a,dst=/b", "src=/a,dst=b", "src=/a,dst=/b,colour=red", ""])
def test_bad_mounts(text: str) -> None:
    """What is missing or unknown is named."""
    with pytest.raises(InvalidArgument, match="mount"):
        parse_mount(text)


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
