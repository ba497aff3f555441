"""What is ours to make and what is the caller's, and what templates stand for: decided without touching the machine."""

from __future__ import annotations

import pytest

from windlass.contracts.activations import ActiveMount
from windlass.contracts.mounts import Mount
from windlass.errors import InvalidArgument, Unimplemented
from windlass_mounts.plan import plan
from windlass_mounts.templates import fill
from windlass_mounts.transformations import make_directories, parse_directory, parse_size


def made(*types: str, allowed: tuple[str, ...] = (), temporary: bool = False) -> tuple[int, bool]:
    todo = plan([Mount(kind, "source") for kind in types], {"loop", "erofs"}, allowed, temporary)
    return todo.made, todo.needed


@pytest.mark.parametrize(
    ("types", "count", "needed"),
    [
        ((), 0, False),
        (("overlay",), 0, False),
        (("bind", "bind"), 0, False),
        (("erofs",), 1, True),
        (("loop", "ext4"), 1, True),
        (("bind", "loop", "ext4"), 2, True),
        (("bind", "bind", "format/overlay"), 2, True),
        (("mkdir/bind",), 0, True),
        (("loop", "format/ext4", "bind"), 1, True),
        (("erofs", "format/mkdir/overlay", "erofs"), 3, True),
    ],
)
def test_all_up_to_the_last_that_needs_us_is_ours(types: tuple[str, ...], count: int, needed: bool) -> None:
    """A handler makes its own mount ours, a transformation those before it."""
    assert made(*types) == (count, needed)


def test_a_temporary_activation_makes_everything() -> None:
    assert made("bind", temporary=True) == (1, True)


def test_what_the_caller_can_do_is_left_to_it() -> None:
    """Types, or all with a prefix, that a runtime names are neither transformed nor handled."""
    assert made("loop", allowed=("loop",)) == (0, False)
    assert made("erofs", "format/mkdir/overlay", allowed=("erofs", "format/*")) == (0, False)
    todo = plan([Mount("format/mkdir/overlay", "")], (), ("mkdir/*",))
    assert (todo.steps[0].transformations, todo.steps[0].mount.type) == (("format",), "mkdir/overlay")


def test_a_type_of_prefixes_alone_and_too_many_mounts_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="transformations alone"):
        made("format/")
    with pytest.raises(InvalidArgument, match="too many"):
        made(*["bind"] * 256)


ACTIVE = [ActiveMount(Mount("erofs", f"/s{n}", target=f"t{n}"), f"/m:{n}") for n in range(3)]


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain", "plain"),
        ("{{source 1}}/x", "/s1/x"),
        ("{{ target 2 }}", "t2"),
        ("a{{ mount 0 }}b{{mount 1}}", "a/m:0b/m:1"),
        ("lowerdir={{ overlay 0 2 }}", r"lowerdir=/m\:0:/m\:1:/m\:2"),
        ("{{ overlay 2 1 }}", r"/m\:2:/m\:1"),
        ("{{ overlay 1 1 }}", r"/m\:1"),
        ("/x }}", "/x }}"),
        ("{ mount 0 }", "{ mount 0 }"),
    ],
)
def test_templates_are_filled_in(text: str, filled: str) -> None:
    """Colons in places would end a lower directory, so there they are escaped."""
    assert fill(text, ACTIVE) == filled


NOTHING = ["{{ mount 3 }}", "{{ overlay 0 3 }}", "{{ mount }}", "{{ mount -1 }}", "{{ x 0 }}", "{{ }}"]
UNPARSED = ["{{ mount 0", "{{ mount 0 }", "a{{", "{{ mount 0 }}/{{ mount 1", "{{{ mount 0 }}}", "{{ {{ mount 0 }} }}"]


@pytest.mark.parametrize("text", NOTHING + UNPARSED)
def test_templates_that_mean_nothing_or_do_not_parse_are_refused(text: str) -> None:
    """containerd 2.4 refuses each of these; only closing braces that close nothing are text."""
    with pytest.raises(InvalidArgument, match="mount template"):
        fill(text, ACTIVE)


def test_templates_cannot_be_made_to_fill_the_memory() -> None:
    long = [ActiveMount(Mount("x", "s" * (1 << 16)), "/m")]
    with pytest.raises(InvalidArgument, match="too long"):
        fill("{{ source 0 }}" * 1000, long)


@pytest.mark.parametrize("text", ["", "/a:", "/a:9", "/a:700:0", "/a:700:x:0", "/a:77777:0:0", "/a:700:0:4294967295"])
def test_a_directory_that_cannot_be_understood_is_refused(text: str) -> None:
    with pytest.raises((InvalidArgument, Unimplemented)):
        make_directories(Mount("bind", "x", (f"X-containerd.mkdir.path={text}",)), ())


def test_directories_and_sizes_are_read() -> None:
    assert parse_directory("/a:1755:5:6").mode == 0o1755
    sizes = ["1", "2k", "3KiB", "1.5M", "4 GB"]
    assert [parse_size(text) for text in sizes] == [1, 2048, 3072, 3 << 19, 4 << 30]
    for text in ("", "0", "-1", "x", "1e9", "9999999999P"):
        with pytest.raises(InvalidArgument, match="is not a size"):
            parse_size(text)
