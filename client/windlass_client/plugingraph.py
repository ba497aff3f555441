"""The initialization graph of a daemon, from what introspection tells: who requires whom, and why something is missing.

Plugins require types, so that the picture is of types, each with its plugins inside.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from windlass.config.known import NOT_BUILT

ALL = "*"
OK, SKIPPED, DISABLED, FAILED = "ok", "skipped", "disabled", "failed"
MARKS = {OK: "✓", SKIPPED: "–", DISABLED: "–", FAILED: "✗"}


@dataclass(frozen=True)
class Node:
    """A plugin as introspection tells of it; ``message`` is why it did not start."""

    type: str
    id: str
    requires: tuple[str, ...] = ()
    message: str = ""
    capabilities: tuple[str, ...] = ()
    exports: Mapping[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """Type and ID."""
        return f"{self.type}.{self.id}"

    @property
    def state(self) -> str:
        """What became of it; containerd tells skipped from failed only by the end of the message."""
        if not self.message:
            return OK
        if self.message.startswith("disabled by the configuration"):
            return DISABLED
        return SKIPPED if self.message.endswith("skip plugin") else FAILED


@dataclass(frozen=True)
class Kind:
    """A type with its plugins, and the types that must start before it."""

    type: str
    plugins: tuple[Node, ...]
    requires: tuple[str, ...]


def required_types(node: Node, types: Iterable[str], starred: frozenset[str]) -> list[str]:
    """Return the types that a plugin requires, ``*`` written out."""
    if ALL not in node.requires:
        return [type for type in node.requires if type != node.type]
    return [type for type in types if type not in starred and type != node.type]


def kinds(nodes: Sequence[Node]) -> list[Kind]:
    """Return the types in start order, each requiring only what no other of its requirements brings along."""
    # By the last plugin of each, because one service may start before a runtime and another after it.
    types = list(dict.fromkeys(node.type for node in reversed(nodes)))[::-1]
    starred = frozenset(node.type for node in nodes if ALL in node.requires)
    edges: dict[str, set[str]] = {type: set() for type in types}
    for node in nodes:
        edges[node.type].update(required_types(node, types, starred))
    missing = sorted({type for targets in edges.values() for type in targets} - set(types))
    order = {type: number for number, type in enumerate([*missing, *types])}
    # Types, unlike plugins, can require each other; what starts later is left out of the picture.
    dag = {type: {to for to in targets if order[to] < order[type]} for type, targets in edges.items()}
    below: dict[str, set[str]] = {type: set() for type in missing}
    result = [Kind(type, (), ()) for type in missing]
    for type in types:
        inner = set().union(*(below[to] for to in dag[type])) if dag[type] else set()
        below[type] = dag[type] | inner
        plugins = tuple(node for node in nodes if node.type == type)
        result.append(Kind(type, plugins, tuple(sorted(dag[type] - inner, key=order.__getitem__))))
    return result


def tree(found: Sequence[Kind]) -> str:
    """Draw the graph as a tree: below each type what it requires; a type seen before is not opened again."""
    by_type = {kind.type: kind for kind in found}
    required = {type for kind in found for type in kind.requires}
    seen: set[str] = set()
    lines: list[str] = []

    def draw(kind: Kind, head: str, tail: str) -> None:
        again = kind.type in seen
        seen.add(kind.type)
        lines.append(f"{head}{kind.type}  {'(above)' if again else members(kind)}")
        if again:
            return
        for number, type in enumerate(kind.requires):
            last = number == len(kind.requires) - 1
            draw(by_type[type], tail + ("└─ " if last else "├─ "), tail + ("   " if last else "│  "))

    # The fullest trees first, so that what they share is drawn where it belongs.
    for kind in sorted(found, key=lambda kind: -len(kind.requires)):
        if kind.type not in required:
            draw(kind, "", "")
    return "\n".join(lines) + "\n"


def members(kind: Kind) -> str:
    """Return the plugins of a type on one line."""
    if not kind.plugins:
        return "✗ not installed"
    return "  ".join(f"{MARKS[node.state]} {node.id}" for node in kind.plugins)


def dot(found: Sequence[Kind]) -> str:
    """Write the graph in Graphviz's language."""
    colours = {OK: "palegreen", SKIPPED: "lightgrey", DISABLED: "lightgrey", FAILED: "lightpink"}
    lines = ["digraph plugins {", "  rankdir=LR; node [shape=box, style=filled, fontname=sans];"]
    for kind in found:
        worst = FAILED if not kind.plugins else next((s for s in (FAILED, OK) if _has(kind, s)), SKIPPED)
        label = "\\n".join([kind.type, *(f"{MARKS[node.state]} {node.id}" for node in kind.plugins)])
        lines.append(f'  "{_quoted(kind.type)}" [label="{_quoted(label)}", fillcolor={colours[worst]}];')
    for kind in found:
        lines += [f'  "{_quoted(type)}" -> "{_quoted(kind.type)}";' for type in kind.requires]
    return "\n".join([*lines, "}"]) + "\n"


def _has(kind: Kind, state: str) -> bool:
    return any(node.state == state for node in kind.plugins)


def _quoted(text: str) -> str:
    return text.replace('"', '\\"')


@dataclass(frozen=True)
class Step:
    """One link of the chain from what is missing to its cause."""

    name: str
    state: str
    message: str


@dataclass(frozen=True)
class Reason:
    """Why something is missing: the chain down to the root cause, which comes last, and what to do."""

    chain: tuple[Step, ...]
    remedy: str


def why(nodes: Sequence[Node], name: str) -> Reason:
    """Follow the requirements of a plugin, by its URI or ID, or of a type, to the deepest that did not start."""
    chain: list[Step] = []
    node, remedy = _descend(nodes, name, chain)
    while node is not None:
        chain.append(Step(node.uri, node.state, node.message))
        remedy = _remedy(node)
        below = _cause(nodes, node, {step.name for step in chain})
        node, deeper = _descend(nodes, below, chain) if below else (None, "")
        remedy = deeper or remedy
        if node is not None and any(step.name == node.uri for step in chain):
            break
    return Reason(tuple(chain), remedy)


def _descend(nodes: Sequence[Node], name: str, chain: list[Step]) -> tuple[Node | None, str]:
    """Return the plugin that a URI or ID, or the one that a type without a started plugin, comes down to."""
    for node in nodes:
        if node.uri == name:
            return node, ""
    same = [node for node in nodes if node.type == name]
    if any(node.state == OK for node in same):
        states = [
            (state, [node.id for node in same if node.state == state]) for state in (OK, FAILED, SKIPPED, DISABLED)
        ]
        text = "; ".join(f"{'started' if state == OK else state}: {', '.join(ids)}" for state, ids in states if ids)
        chain.append(Step(name, OK, text))
        return None, ""
    # of several plugins with one ID, the one that there is something to explain of
    named = sorted((node for node in nodes if node.id == name), key=lambda node: node.state == OK)
    if len(named) > 1 and named[0].state == OK:
        chain.append(Step(name, OK, f"started: {', '.join(node.uri for node in named)}"))
        return None, ""
    if named:
        return named[0], ""
    for state in (FAILED, SKIPPED, DISABLED):
        for node in same:
            if node.state == state:
                return node, ""
    for uri in NOT_BUILT:
        type, _, id = uri.rpartition(".")
        if name.lower() in (uri, type, id):
            chain.append(Step(uri, "not installed", "containerd has this plugin, Windlass does not have it yet"))
            return (
                None,
                "do without it: docs/compatibility.md has what takes its place; or install a third party's with pip",
            )
    close = difflib.get_close_matches(name, [node.uri for node in nodes], 1)
    close = close or [node.uri for node in nodes if node.id in difflib.get_close_matches(name, [node.id], 1)]
    chain.append(Step(name, "not installed", ""))
    hint = f"did you mean {close[0]}? Otherwise " if close else ""
    return None, f"{hint}install a distribution that provides it into the daemon's environment with pip"


def _cause(nodes: Sequence[Node], node: Node, seen: set[str]) -> str:
    """Return the requirement that a plugin is missing because of, empty when it is its own fault."""
    if node.state in (OK, DISABLED):
        return ""
    for other in nodes:
        if other.state != OK and other.uri not in seen and other.uri in node.message:
            return other.uri
    for type in node.requires:
        if type in (ALL, node.type) or type in seen:
            continue
        # A message of its own tells more than an optional requirement that is missing.
        if not any(other.type == type and other.state == OK for other in nodes) and (
            node.state == FAILED or type in node.message
        ):
            return type
    return ""


def _remedy(node: Node) -> str:
    if node.state == DISABLED:
        return f'remove "{node.uri}" from disabled_plugins in the configuration and restart the daemon'
    if node.state == SKIPPED:
        return "make this machine provide what the message asks for and restart the daemon, or do without it"
    if node.state == FAILED:
        return "repair what the message says and restart the daemon; the daemon's log has the details"
    return ""
