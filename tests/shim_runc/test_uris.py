"""URIs by which clients name stdio, read as containerd's Go does (url.Parse, url.ParseQuery)."""

from __future__ import annotations

import pytest

from windlass.errors import InvalidArgument
from windlass_shim_runc.uris import logger_command, split


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("", ("", "", "")),
        ("/run/fifo/1/out", ("", "/run/fifo/1/out", "")),
        ("/run/100%/a?b#c", ("", "/run/100%/a?b#c", "")),
        ("/odd/a://b", ("", "/odd/a://b", "")),
        ("file:///var/log/a%20b%2Fc.log", ("file", "/var/log/a b/c.log", "")),
        ("file:///var/log/1+1", ("file", "/var/log/1+1", "")),
        ("file:/var/log/x", ("file", "/var/log/x", "")),
        ("FILE://localhost/x", ("file", "/x", "")),
        ("file:///x?a=b#c", ("file", "/x", "a=b")),
        ("file:///%ff", ("file", "/\udcff", "")),
        ("fifo:///a%25", ("fifo", "/a%", "")),
        ("binary-v2:///bin/a%3Fb?k=v", ("binary-v2", "/bin/a?b", "k=v")),
    ],
)
def test_paths_are_decoded_in_uris_and_only_there(value: str, parts: tuple[str, str, str]) -> None:
    """A plain path is taken as it is, whatever it looks like."""
    assert split(value) == parts


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("file:///a%", "has a % without two hexadecimal digits; write %25 for it"),
        ("file:///a%2", "hexadecimal"),
        ("file:///a%+1", "hexadecimal"),
        ("file:///a%00b", "zero byte"),
        ("file://var/log/x", "is on host var; write file:///path with three slashes"),
        ("binary://bin/logger", "is on host bin"),
        ("http://localhost/x", "scheme http:// is not known"),
    ],
)
def test_what_is_not_a_uri_of_this_machine_is_refused(value: str, words: str) -> None:
    """INVALID_ARGUMENT that says what to write."""
    with pytest.raises(InvalidArgument, match=words):
        split(value)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", []),
        ("verbose", ["verbose", ""]),
        ("a=&b", ["a", "", "b", ""]),
        ("key=a+b%2Bc&&key=second&other=x=y", ["key", "a b+c", "other", "x=y"]),
    ],
)
def test_a_loggers_arguments_are_pairs(query: str, words: list[str]) -> None:
    """Each key with its first value, and "" for a bare key, so that a logger can count on pairs."""
    assert logger_command("/bin/log", query) == ["/bin/log", *words]
