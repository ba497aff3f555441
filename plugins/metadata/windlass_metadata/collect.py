"""Garbage collection: mark on a snapshot of the database, sweep under the writer in small batches.

Writers are not stopped while marking, so a change may since refer to what was
garbage then. Every change notes the nodes that it touched; each batch of the
sweep first marks from these, inside the transaction that deletes, so that no
change comes in between. Invariant: what refers is deleted before what it refers
to, so a node that is still there has everything beneath it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import field

from google.protobuf.message import Message

from windlass.contracts.metadata import Collectible
from windlass.records import dataclass
from windlass_api.containerd.events.snapshot_pb2 import SnapshotRemove
from windlass_api.containerd.services.images.v1.events_pb2 import ImageDelete
from windlass_metadata import nodes, trash
from windlass_metadata.columns import now
from windlass_metadata.graph import Graph, Marked, referrers_first
from windlass_metadata.images import IMAGES
from windlass_metadata.ingest_rows import BLOBS, INGESTS, remove_ingest
from windlass_metadata.leases import remove_lease
from windlass_metadata.ledger import Ledger
from windlass_metadata.nodes import Node
from windlass_metadata.snapshot_rows import RowState, SnapshotRows

BATCH = 200
"""Nodes that one transaction of the sweep deletes; other writers wait for it."""


Outside = Callable[[], Sequence[tuple[str, Collectible]]]
"""What other stores have us collect, with its kind."""


@dataclass(slots=True)
class Removed:
    """What a batch has deleted, and the events that tell of it."""

    count: int = 0
    events: list[tuple[str, str, Message]] = field(default_factory=list)


def collect(ledger: Ledger, batch: int = BATCH, outside: Outside = tuple) -> tuple[int, list[Node]]:
    """Delete from the database whatever is not reachable; return how many rows that were, and the garbage ``outside``.

    One collection at a time.
    """
    ledger.database.write(lambda db: _watch(ledger, True), durable=False, frees=True)
    try:
        graph = Graph(now())
        # Before the database is read: what comes later is not known, and so not garbage.
        found = outside()
        for kind, one in found:
            graph.add_collectible(kind, one)
        with ledger.read() as db:
            graph.load(db)
        marked = Marked(graph)
        garbage = referrers_first((node for node in graph.removable if node not in marked), graph.edges)
        inside = [node for node in garbage if not node[0].startswith(nodes.OUTSIDE)]
        removed = sum(
            _sweep(ledger, graph, marked, inside[start : start + batch]) for start in range(0, len(inside), batch)
        )
        if len(inside) == len(garbage):
            return removed, []
        ledger.database.write(lambda db: _mark_touched(ledger, db, graph, marked), durable=False, frees=True)
        return removed, [node for node in garbage if node[0].startswith(nodes.OUTSIDE) and node not in marked]
    finally:
        ledger.database.write(lambda db: _watch(ledger, False), durable=False, frees=True)


def _watch(ledger: Ledger, on: bool) -> None:
    ledger.touched = [] if on else None


def _sweep(ledger: Ledger, graph: Graph, marked: Marked, garbage: list[Node]) -> int:
    removed = ledger.database.write(lambda db: _delete(ledger, db, graph, marked, garbage), frees=True)
    for namespace, topic, event in removed.events:
        ledger.publish(namespace, topic, event)
    return removed.count


def _delete(ledger: Ledger, db: sqlite3.Connection, graph: Graph, marked: Marked, garbage: list[Node]) -> Removed:
    """Delete, inside a change, what is still not reachable."""
    _mark_touched(ledger, db, graph, marked)
    in_use = {nodes.ingest(namespace, ref) for namespace, ref in ledger.open_refs()}
    removed = Removed()
    blobs: list[tuple[str, str]] = []
    for node in garbage:
        if node in marked or node in in_use:
            continue
        kind, namespace, key = node
        if kind == nodes.CONTENT:
            blobs.append((namespace, key))
        else:
            _delete_node(ledger, db, node, removed)
    removed.count += _delete_blobs(db, blobs)
    return removed


def _mark_touched(ledger: Ledger, db: sqlite3.Connection, graph: Graph, marked: Marked) -> None:
    """Mark, inside a change, from what others have changed since the last time."""
    touched, ledger.touched = ledger.touched or [], []
    for node in dict.fromkeys(touched):
        graph.refresh(db, node)
    marked.extend()


def _delete_node(ledger: Ledger, db: sqlite3.Connection, node: Node, removed: Removed) -> None:
    kind, namespace, key = node
    if kind.startswith(nodes.SNAPSHOT):
        snapshotter = kind.removeprefix(nodes.SNAPSHOT)
        if _delete_snapshot(SnapshotRows(ledger, snapshotter, namespace), db, key):
            removed.count += 1
            removed.events.append((namespace, "/snapshot/remove", SnapshotRemove(key=key, snapshotter=snapshotter)))
    elif DELETES[kind](db, namespace, key):
        removed.count += 1
        if kind == nodes.IMAGE:
            removed.events.append((namespace, "/images/delete", ImageDelete(name=key)))


def _delete_snapshot(snapshots: SnapshotRows, db: sqlite3.Connection, key: str) -> bool:
    row = snapshots.find(db, key)
    if row is None or row.state != RowState.READY or snapshots.has_child(db, key):
        return False
    snapshots.delete(db, row)
    return True


def _delete_blobs(db: sqlite3.Connection, blobs: Sequence[tuple[str, str]]) -> int:
    """Delete the rows of many blobs; what needed them in this batch has gone before, or keeps them from the trash."""
    count = BLOBS.delete_each(db, blobs)
    trash.discard_blobs(db, (digest for _, digest in blobs))
    return count


def _delete_ingest(db: sqlite3.Connection, namespace: str, ref: str) -> bool:
    row = INGESTS.find(db, namespace, ref)
    if row is not None:
        remove_ingest(db, namespace, row)
    return row is not None


DELETES: dict[str, Callable[[sqlite3.Connection, str, str], bool]] = {
    nodes.IMAGE: IMAGES.table.delete,
    nodes.LEASE: remove_lease,
    nodes.INGEST: _delete_ingest,
}
