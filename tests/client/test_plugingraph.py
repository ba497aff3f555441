"""The initialization graph: what requires what, and why something is missing."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from windlass import discovery
from windlass.config.known import NOT_BUILT
from windlass_client.graphsvg import svg
from windlass_client.plugingraph import Node, dot, kinds, tree, why

NODES = [
    Node("content", "local"),
    Node("snapshotter", "overlay"),
    Node("snapshotter", "btrfs", message="/x is no btrfs; use another: skip plugin"),
    Node("metadata", "db", ("content", "snapshotter")),
    Node("service", "early", ("metadata",)),
    Node("runtime", "task", ("metadata", "shim"), message="no plugin of type shim has started"),
    Node("service", "tasks", ("metadata", "runtime"), message="no plugin of type runtime has started"),
    Node("grpc", "tasks", ("service", "content")),
    Node("server", "grpc", ("*",)),
]


def test_the_tree_opens_each_type_once() -> None:
    """Below a type is what it requires and nothing that comes along with that."""
    assert tree(kinds(NODES)) == (
        "server  ✓ grpc\n"
        "└─ grpc  ✓ tasks\n"
        "   └─ service  ✓ early  ✗ tasks\n"
        "      └─ runtime  ✗ task\n"
        "         ├─ shim  ✗ not installed\n"
        "         └─ metadata  ✓ db\n"
        "            ├─ content  ✓ local\n"
        "            └─ snapshotter  ✓ overlay  – btrfs\n"
    )


def test_types_that_require_each_other_are_drawn_all_the_same() -> None:
    """Plugins start in an order even where their types look like a loop."""
    nodes = [Node("a", "1"), Node("b", "1", ("a",)), Node("a", "2", ("b",))]
    assert "b  ✓ 1" in tree(kinds(nodes))


def test_dot_has_every_type_and_edge() -> None:
    """An edge leads from the requirement to its user."""
    text = dot(kinds(NODES))
    assert '"metadata" -> "runtime";' in text
    assert '"shim" [label="shim", fillcolor=lightpink];' in text


def test_the_picture_is_well_formed_and_nothing_overlaps() -> None:
    """Boxes have room, and text from plugins cannot leave its place."""
    nodes = [*NODES, Node("evil", "</svg><script>", message='"<&')]
    root = ElementTree.fromstring(svg(kinds(nodes)))
    boxes = [
        tuple(float(rect.get(key) or 0) for key in ("x", "y", "width", "height"))
        for rect in root.iter("{http://www.w3.org/2000/svg}rect")
        if rect.get("rx")
    ]

    assert len(boxes) == 9
    for number, (x, y, width, height) in enumerate(boxes):
        for other_x, other_y, other_width, other_height in boxes[number + 1 :]:
            apart_x = x + width <= other_x or other_x + other_width <= x
            assert apart_x or y + height <= other_y or other_y + other_height <= y
    assert not re.search("<script", svg(kinds(nodes)))


def test_no_plugins_make_an_empty_picture() -> None:
    """Not an error."""
    assert ElementTree.fromstring(svg(kinds([]))) is not None


def test_why_finds_the_root_cause() -> None:
    """A service that failed is followed to the type that nobody installed."""
    reason = why(NODES, "service.tasks")
    assert [(step.name, step.state) for step in reason.chain] == [
        ("service.tasks", "failed"),
        ("runtime.task", "failed"),
        ("shim", "not installed"),
    ]
    assert "pip" in reason.remedy


def test_why_something_was_skipped_is_its_own_message() -> None:
    """A machine that cannot is nobody else's fault."""
    reason = why(NODES, "snapshotter.btrfs")
    assert [step.state for step in reason.chain] == ["skipped"]
    assert "is no btrfs" in reason.chain[0].message


def test_why_follows_a_plugin_that_the_message_names() -> None:
    """One plugin may need another by its ID although its type has others."""
    nodes = [
        Node("s", "one"),
        Node("s", "two", message="disabled by the configuration: skip plugin"),
        Node("d", "x", ("s",), message="plugin s.two has not started"),
    ]
    reason = why(nodes, "d.x")
    assert [step.name for step in reason.chain] == ["d.x", "s.two"]
    assert "disabled_plugins" in reason.remedy


def test_why_ends_even_when_messages_name_each_other() -> None:
    """Two plugins that blame each other are followed once."""
    nodes = [Node("a", "1", ("b",), "because of b.1"), Node("b", "1", ("a",), "because of a.1")]
    assert [step.name for step in why(nodes, "a.1").chain] == ["a.1", "b.1"]


def test_why_of_something_unknown_guesses() -> None:
    """A slip of the finger is recognised."""
    reason = why(NODES, "snapshotter.btrsf")
    assert reason.chain[0].state == "not installed"
    assert "did you mean snapshotter.btrfs?" in reason.remedy


def test_why_of_something_that_runs() -> None:
    """There is nothing to explain, for a plugin and for a type."""
    assert [step.state for step in why(NODES, "metadata.db").chain] == ["ok"]
    assert [step.state for step in why(NODES, "snapshotter").chain] == ["ok"]


def test_why_of_a_type_names_every_plugin_with_its_state() -> None:
    """Images are refused while one verifier has failed, so "ok" alone would mislead."""
    nodes = [Node("v", "a"), Node("v", "b", message="'x'"), Node("v", "c")]
    assert why(nodes, "v").chain[0].message == "started: a, c; failed: b"


def test_why_takes_an_id() -> None:
    """It is what users write at `--snapshotter`; of several the one that did not start."""
    assert [step.name for step in why(NODES, "btrfs").chain] == ["snapshotter.btrfs"]
    assert why(NODES, "tasks").chain[0].name == "service.tasks"
    assert [step.state for step in why(NODES, "overlay").chain] == ["ok"]
    assert "did you mean snapshotter.overlay?" in why(NODES, "overlayy").remedy
    both = [Node("a", "x"), Node("b", "x")]
    assert [(step.state, step.message) for step in why(both, "x").chain] == [("ok", "started: a.x, b.x")]


@pytest.mark.parametrize(
    "name",
    [
        "devmapper",
        "Devmapper",
        "io.containerd.snapshotter.v1.devmapper",
        "zfs",
    ],
)
def test_why_knows_what_only_containerd_has(name: str) -> None:
    """No installation brings it, so that none is advised."""
    reason = why(NODES, name)
    assert reason.chain[0].state == "not installed"
    assert reason.chain[0].name in NOT_BUILT
    assert "Windlass does not have it yet" in reason.chain[0].message
    assert "compatibility.md" in reason.remedy


def test_what_is_built_is_not_said_to_be_missing() -> None:
    """The list of what Windlass does not have follows what it has."""
    assert not set(NOT_BUILT) & set(discovery.installed())
