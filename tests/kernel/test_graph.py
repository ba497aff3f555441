"""The start order: requirements first, the same every time, loops named in full."""

from __future__ import annotations

import random

import pytest

from windlass.errors import StartError
from windlass.graph import start_order
from windlass.plugin import ALL, Plugin, PluginType

A: PluginType[object] = PluginType("type.a")
B: PluginType[object] = PluginType("type.b")
C: PluginType[object] = PluginType("type.c")


def plugin(kind: PluginType[object], id: str, *requires: PluginType[object]) -> Plugin[object]:
    return Plugin(kind, id=id, init=lambda context: None, requires=requires)


def order(*plugins: Plugin[object]) -> list[str]:
    return [each.uri for each in start_order(plugins)]


def test_requirements_start_first() -> None:
    """Every plugin of a required type starts before the plugin that requires it."""
    assert order(plugin(A, "1", B), plugin(B, "2"), plugin(B, "1")) == ["type.b.1", "type.b.2", "type.a.1"]


def test_the_order_does_not_depend_on_how_plugins_were_found() -> None:
    """A daemon starts in the same order at every boot."""
    plugins = [plugin(A, str(n), B) for n in range(5)] + [plugin(B, str(n), C) for n in range(5)] + [plugin(C, "1")]
    expected = order(*plugins)
    for seed in range(200):
        random.Random(seed).shuffle(plugins)
        assert order(*plugins) == expected


def test_a_loop_is_named_in_full() -> None:
    """Whoever reads the message knows which plugins to look at."""
    with pytest.raises(StartError) as caught:
        order(plugin(A, "1", B), plugin(B, "1", C), plugin(C, "1", A))
    message = str(caught.value)
    assert message.startswith("plugins require each other: ")
    named = message.removeprefix("plugins require each other: ").split(" -> ")
    assert {"type.a.1", "type.b.1", "type.c.1"} <= set(named)


def test_a_loop_reads_from_dependant_to_requirement() -> None:
    """``a -> b`` means that a requires b."""
    with pytest.raises(StartError, match=r"type\.a\.1 -> type\.b\.1|type\.b\.1 -> type\.c\.1"):
        order(plugin(A, "1", B), plugin(B, "1", C), plugin(C, "1", A))


def test_all_means_everything_else_first() -> None:
    """A plugin that requires ALL starts last; two of them do not wait for each other."""
    assert order(plugin(A, "1", ALL), plugin(C, "1"), plugin(B, "1", ALL)) == ["type.c.1", "type.a.1", "type.b.1"]


def test_a_required_type_without_plugins_is_no_error_here() -> None:
    """The lookup says what is missing, not the order."""
    assert order(plugin(A, "1", B)) == ["type.a.1"]


@pytest.mark.parametrize(
    ("kind", "id", "requires"),
    [(PluginType(""), "x", ()), (A, "", ()), (A, "x", (A,)), (A, "x", (ALL, B))],
)
def test_declarations_that_can_never_be_ordered_are_refused(
    kind: PluginType[object], id: str, requires: tuple[PluginType[object], ...]
) -> None:
    """Empty names, a plugin that requires its own type, and ALL beside other requirements."""
    with pytest.raises(ValueError, match="plugin"):
        plugin(kind, id, *requires)
