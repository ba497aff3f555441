"""What refers to what, read from the database, and what of it is reachable.

There are two worlds. In the full one everything is followed; in the flat one,
entered through leases labelled ``containerd.io/gc.flat``, only a snapshot's
parent and an image's target are. A node is alive if it is reached in either.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from windlass.contracts.leases import LABEL_EXPIRE, LABEL_FLAT
from windlass.contracts.metadata import Collectible
from windlass_metadata import nodes
from windlass_metadata.columns import decode_map
from windlass_metadata.nodes import Node
from windlass_metadata.references import (
    PREFIX,
    USED_AT,
    Condition,
    back_references,
    conditions,
    expired,
    is_root,
    parse_time,
    references,
)

CONTENT = "SELECT namespace, digest, labels FROM content"
IMAGES = "SELECT namespace, name, digest, labels FROM images"
CONTAINERS = "SELECT namespace, id, snapshotter, snapshot_key, labels FROM containers"
SANDBOXES = "SELECT namespace, id, labels FROM sandboxes"
SNAPSHOTS = "SELECT namespace, snapshotter, key, parent, labels, state FROM snapshots"
INGESTS = "SELECT namespace, ref, digest, expires_at FROM ingests"
LEASES = "SELECT namespace, id, labels FROM leases"
RESOURCES = (
    "SELECT r.namespace, r.type, r.id, l.labels FROM lease_resources r"
    " JOIN leases l ON l.namespace = r.namespace AND l.id = r.lease"
)

NO_LABELS: Mapping[str, str] = {}

Reader = tuple[str, str, Callable[..., None]]
"""A query for all rows, the condition that finds one, and what takes a row."""


class Graph:
    """References between nodes; additions only, so that a refreshed node never loses one that it had."""

    def __init__(self, now: int) -> None:
        """Start empty; what expires is judged as of ``now``."""
        self.now = now
        self.edges: dict[Node, list[Node]] = defaultdict(list)
        self.flat_edges: dict[Node, tuple[Node]] = {}
        self.roots: list[Node] = []
        self.flat_roots: list[Node] = []
        self.removable: dict[Node, None] = {}
        """Everything that goes unless it is reached, in the order of reading."""
        self._collected: set[str] = set()
        self._used_at: dict[Node, int | None] = {}
        self._conditions: list[tuple[Node, Condition]] = []

    def load(self, db: sqlite3.Connection) -> None:
        """Read everything."""
        for readers in self._readers().values():
            for query, _, add in readers:
                for row in db.execute(query):
                    add(*row)
        self._apply_conditions()

    def add_collectible(self, kind: str, one: Collectible) -> None:
        """Add an object of a store outside of the database, before what may refer to it is read."""
        node = (nodes.OUTSIDE + kind, one.namespace, one.id)
        if one.name:
            self._collected.add(kind)
            self.edges[nodes.NAMED + kind, one.namespace, one.name].append(node)
        self.removable[node] = None
        if one.lease:
            self.edges[nodes.lease(one.namespace, one.lease)].append(node)
        for referrer in back_references(one.namespace, one.labels):
            self.edges[referrer].append(node)
        if is_root(one.labels):
            self.roots.append(node)

    def refresh(self, db: sqlite3.Connection, node: Node) -> None:
        """Read one node again, which was changed, and make it a root."""
        kind, namespace, key = node
        base, slash, snapshotter = kind.partition("/")
        at = (namespace, key, snapshotter) if slash else (namespace, key)
        for query, condition, add in self._readers()[base + slash]:
            for row in db.execute(f"{query} WHERE {condition}", at).fetchall():
                add(*row)
        self._apply_conditions()
        if kind != nodes.LEASE:  # a lease is a root or not by its own labels
            self.roots.append(node)

    def _readers(self) -> dict[str, tuple[Reader, ...]]:
        """Return, by kind of node, how its rows are read, and how one of them is found."""
        return {
            nodes.CONTENT: ((CONTENT, "namespace = ? AND digest = ?", self._add_content),),
            nodes.IMAGE: ((IMAGES, "namespace = ? AND name = ?", self._add_image),),
            nodes.CONTAINER: ((CONTAINERS, "namespace = ? AND id = ?", self._add_container),),
            nodes.SANDBOX: ((SANDBOXES, "namespace = ? AND id = ?", self._add_sandbox),),
            nodes.SNAPSHOT: ((SNAPSHOTS, "namespace = ? AND key = ? AND snapshotter = ?", self._add_snapshot),),
            nodes.INGEST: ((INGESTS, "namespace = ? AND ref = ?", self._add_ingest),),
            nodes.LEASE: (
                (LEASES, "namespace = ? AND id = ?", self._add_lease),
                (RESOURCES, "l.namespace = ? AND l.id = ?", self._add_resource),
            ),
        }

    def _add_content(self, namespace: str, digest: str, labels: str) -> None:
        node = nodes.content(namespace, digest)
        self.removable[node] = None
        found = self._follow(node, namespace, labels, conditional=True)
        if is_root(found):
            self.roots.append(node)

    def _add_image(self, namespace: str, name: str, digest: str, labels: str) -> None:
        node = nodes.image(namespace, name)
        target = nodes.content(namespace, digest)
        found = gc_labels(labels)
        is_expired = expired(found.get(LABEL_EXPIRE), self.now)
        self.removable[node] = None
        self.edges[node].append(target)
        self.flat_edges[node] = (target,)
        # one that has not expired is a root: whether something refers to it does not matter
        self._follow(node, namespace, labels, conditional=True, backward=is_expired)
        if not is_expired:
            self.roots.append(node)

    def _add_container(self, namespace: str, id: str, snapshotter: str, snapshot_key: str, labels: str) -> None:
        node = nodes.container(namespace, id)
        self.roots.append(node)
        if snapshotter and snapshot_key:
            self.edges[node].append(nodes.snapshot(namespace, snapshotter, snapshot_key))
        self._follow(node, namespace, labels)

    def _add_sandbox(self, namespace: str, _id: str, labels: str) -> None:
        self.roots.extend(references(namespace, gc_labels(labels), self._collected))

    def _add_snapshot(self, namespace: str, snapshotter: str, key: str, parent: str, labels: str, state: int) -> None:
        node = nodes.snapshot(namespace, snapshotter, key)
        self.removable[node] = None
        if parent:
            below = nodes.snapshot(namespace, snapshotter, parent)
            self.flat_edges[node] = (below,)
            self.edges[node].append(below)
        found = self._follow(node, namespace, labels)
        if USED_AT in found:
            self._used_at[node] = parse_time(found[USED_AT])
        if state or is_root(found):
            self.roots.append(node)

    def _add_ingest(self, namespace: str, ref: str, digest: str, expires_at: int) -> None:
        node = nodes.ingest(namespace, ref)
        self.removable[node] = None
        if digest:
            self.edges[node].append(nodes.content(namespace, digest))
        if expires_at > self.now:
            self.roots.append(node)

    def _add_lease(self, namespace: str, id: str, labels: str) -> None:
        node = nodes.lease(namespace, id)
        self.removable[node] = None
        if not expired(gc_labels(labels).get(LABEL_EXPIRE), self.now):
            self.roots.append(node)

    def _add_resource(self, namespace: str, type: str, id: str, lease_labels: str) -> None:
        labels = gc_labels(lease_labels)
        if expired(labels.get(LABEL_EXPIRE), self.now):
            return
        node = nodes.resource(namespace, type, id)
        flat = LABEL_FLAT in labels and node[0] != nodes.INGEST
        (self.flat_roots if flat else self.roots).append(node)

    def _follow(
        self, node: Node, namespace: str, text: str, conditional: bool = False, backward: bool = True
    ) -> Mapping[str, str]:
        """Add what the labels of a node say, and return those that concern us."""
        labels = gc_labels(text)
        if labels:
            self.edges[node].extend(references(namespace, labels, self._collected))
            if backward:
                for referrer in back_references(namespace, labels):
                    self.edges[referrer].append(node)
            if conditional:
                self._conditions.extend((node, condition) for condition in conditions(namespace, labels))
        return labels

    def _apply_conditions(self) -> None:
        for node, condition in self._conditions:
            if condition.holds(self._used_at.get(condition.target), self.now):
                self.edges[node].append(condition.target)
        self._conditions = []


class Marked:
    """The nodes that were reached, in either world; marking can go on when roots are added."""

    def __init__(self, graph: Graph) -> None:
        """Mark what is reachable in ``graph``."""
        self._graph = graph
        self._full: set[Node] = set()
        self._flat: set[Node] = set()
        self.extend()

    def __contains__(self, node: Node) -> bool:
        return node in self._full or node in self._flat

    def extend(self) -> None:
        """Mark from the roots that the graph has got since the last time, and forget them."""
        graph = self._graph
        roots, graph.roots = graph.roots, []
        # a node that is marked may have new edges, so roots are always looked at again
        reach(roots, graph.edges, self._full)
        flat_roots, graph.flat_roots = graph.flat_roots, []
        reach(flat_roots, graph.flat_edges, self._flat)


def reach(roots: Iterable[Node], edges: Mapping[Node, Iterable[Node]], reached: set[Node]) -> None:
    """Add to ``reached`` the roots and everything that can be reached from them."""
    waiting = list(roots)
    reached.update(waiting)
    while waiting:
        for node in edges.get(waiting.pop(), ()):
            if node not in reached:
                reached.add(node)
                waiting.append(node)


def referrers_first(garbage: Iterable[Node], edges: Mapping[Node, Iterable[Node]]) -> list[Node]:
    """Return ``garbage`` so that what refers comes before what it refers to; loops are cut somewhere."""
    left = dict.fromkeys(garbage)
    finished: list[Node] = []
    while left:
        start, _ = left.popitem()
        path = [(start, iter(edges.get(start, ())))]
        while path:
            node, targets = path[-1]
            target = next((target for target in targets if target in left), None)
            if target is None:
                finished.append(node)
                path.pop()
            else:
                del left[target]
                path.append((target, iter(edges.get(target, ()))))
    finished.reverse()
    return finished


def gc_labels(text: str) -> Mapping[str, str]:
    """Return labels from their column, or none if none of them concerns garbage collection."""
    return decode_map(text) if PREFIX in text else NO_LABELS
