"""Containers, the specs and labels from which tasks are started (docs/containerd 3.2)."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace

from windlass.contracts.containers import Container, ContainerStore
from windlass.contracts.values import Payload, check_identifier, check_labels
from windlass.errors import AlreadyExists, InvalidArgument, NotFound
from windlass.filters import expressions as filter_expressions
from windlass.filters.fieldpaths import kept_labels, selects, updated_map
from windlass.plugin import quick
from windlass_api.containerd.events.container_pb2 import ContainerCreate, ContainerDelete, ContainerUpdate
from windlass_metadata import nodes
from windlass_metadata.ledger import Ledger, ensure_namespace
from windlass_metadata.rows import (
    decode_map,
    decode_payloads,
    encode_map,
    encode_payloads,
    now,
    payload_columns,
    payload_of,
)

COLUMNS = (
    "id, runtime, runtime_options_type, runtime_options, spec_type, spec, labels, image, snapshotter, snapshot_key,"
    " extensions, sandbox, created_at, updated_at"
)
MUTABLE = ("labels", "spec", "extensions", "image", "snapshotkey")
"""Field paths of an update; all of them when it names none."""


class Containers(ContainerStore):
    """One namespace's containers."""

    def __init__(self, ledger: Ledger, namespace: str) -> None:
        """Read and write ``ledger``."""
        self._ledger = ledger
        self._namespace = namespace

    @quick
    def get(self, id: str) -> Container:
        """See the contract."""
        with self._ledger.read() as db:
            return self._existing(db, id)

    def list(self, filters: Sequence[str] = ()) -> list[Container]:
        """See the contract."""
        accepts = filter_expressions.parse(filters)
        query = f"SELECT {COLUMNS} FROM containers WHERE namespace = ? ORDER BY id"  # noqa: S608 - columns of ours
        with self._ledger.read() as db:
            containers = [_container(*row) for row in db.execute(query, (self._namespace,))]
        return [container for container in containers if accepts(adaptor(container))]

    def create(self, container: Container) -> Container:
        """See the contract."""
        check_container(container)

        def insert(db: sqlite3.Connection) -> Container:
            if self._find(db, container.id):
                raise AlreadyExists(f"container {container.id} already exists")
            ensure_namespace(db, self._namespace)
            moment = now()
            return self._write(db, replace(container, created_at=moment, updated_at=moment))

        created = self._ledger.change(insert)
        event = ContainerCreate(id=created.id, image=created.image)
        event.runtime.name = created.runtime
        if created.runtime_options:
            event.runtime.options.type_url = created.runtime_options.type_url
            event.runtime.options.value = created.runtime_options.value
        self._ledger.publish(self._namespace, "/containers/create", event)
        return created

    def update(self, container: Container, fieldpaths: Sequence[str] = ()) -> Container:
        """See the contract."""
        if not container.id:
            raise InvalidArgument("container ID must not be empty")

        def write(db: sqlite3.Connection) -> Container:
            current = self._existing(db, container.id)
            if not fieldpaths:
                _check_immutable(current, container)
            changed = masked(current, container, fieldpaths or MUTABLE)
            check_container(changed)
            return self._write(db, replace(changed, updated_at=now()))

        updated = self._ledger.change(write)
        event = ContainerUpdate(
            id=updated.id, image=updated.image, labels=updated.labels, snapshot_key=updated.snapshot_key
        )
        self._ledger.publish(self._namespace, "/containers/update", event)
        return updated

    def delete(self, id: str) -> None:
        """See the contract."""

        def remove(db: sqlite3.Connection) -> None:
            self._existing(db, id)
            db.execute("DELETE FROM containers WHERE namespace = ? AND id = ?", (self._namespace, id))

        self._ledger.change(remove, deletion=True)
        self._ledger.publish(self._namespace, "/containers/delete", ContainerDelete(id=id))

    def _find(self, db: sqlite3.Connection, id: str) -> Container | None:
        query = f"SELECT {COLUMNS} FROM containers WHERE namespace = ? AND id = ?"  # noqa: S608 - columns of ours
        row = db.execute(query, (self._namespace, id)).fetchone()
        return row and _container(*row)

    def _existing(self, db: sqlite3.Connection, id: str) -> Container:
        container = self._find(db, id)
        if container is None:
            raise NotFound(f"container {id} does not exist")
        return container

    def _write(self, db: sqlite3.Connection, container: Container) -> Container:
        container = replace(container, labels=kept_labels(container.labels))
        db.execute(
            "INSERT OR REPLACE INTO containers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._namespace,
                container.id,
                container.runtime,
                *payload_columns(container.runtime_options),
                *payload_columns(container.spec),
                encode_map(container.labels),
                container.image,
                container.snapshotter,
                container.snapshot_key,
                encode_payloads(container.extensions),
                container.sandbox,
                container.created_at,
                container.updated_at,
            ),
        )
        self._ledger.touch(nodes.container(self._namespace, container.id))
        return container


def check_container(container: Container) -> None:
    """Raise InvalidArgument unless a container may be recorded as it is."""
    check_identifier("container ID", container.id)
    check_extensions(f"container {container.id}", container.extensions)
    check_labels(container.labels)
    if not container.runtime:
        raise InvalidArgument(f"container {container.id}: the name of its runtime must not be empty")
    if container.spec is None:
        raise InvalidArgument(f"container {container.id} has no spec")
    if container.snapshot_key and not container.snapshotter:
        raise InvalidArgument(f"container {container.id} has a snapshot key but no snapshotter")


def check_extensions(what: str, extensions: Mapping[str, Payload]) -> None:
    """Raise InvalidArgument for an extension without a name."""
    if "" in extensions:
        raise InvalidArgument(f"{what}: the name of an extension must not be empty")


def updated_extensions(
    current: Mapping[str, Payload], changes: Mapping[str, Payload], path: str
) -> Mapping[str, Payload]:
    """Return extensions as ``path`` says: replaced all, or one of them set, or removed when ``changes`` lacks it."""
    if path == "extensions":
        return changes
    key = path.removeprefix("extensions.")
    others = {name: value for name, value in current.items() if name != key}
    return {**others, key: changes[key]} if key in changes else others


def masked(current: Container, container: Container, fieldpaths: Sequence[str]) -> Container:
    """Return ``current`` with the fields of ``container`` that ``fieldpaths`` name."""
    result = current
    for path in fieldpaths:
        if path == "spec":
            result = replace(result, spec=container.spec)
        elif path == "image":
            result = replace(result, image=container.image)
        elif path == "snapshotkey":
            result = replace(result, snapshot_key=container.snapshot_key)
        elif selects(path, "labels"):
            labels = updated_map("labels", result.labels, container.labels, [path], f"container {current.id}")
            result = replace(result, labels=labels)
        elif selects(path, "extensions"):
            extensions = updated_extensions(result.extensions, container.extensions, path)
            result = replace(result, extensions=extensions)
        else:
            raise InvalidArgument(
                f"cannot update field {path[:128]!r} of container {current.id}: only {', '.join(MUTABLE)} can change"
            )
    return result


def _check_immutable(current: Container, container: Container) -> None:
    if container.snapshotter != current.snapshotter:
        raise InvalidArgument(f"container {current.id}: its snapshotter cannot change")
    if container.runtime != current.runtime:
        raise InvalidArgument(f"container {current.id}: its runtime cannot change")


def adaptor(container: Container) -> filter_expressions.Adaptor:
    """Show a container to a filter."""

    def field(path: Sequence[str]) -> tuple[str, bool]:
        match path:
            case ["id"]:
                return filter_expressions.value_of(container.id)
            case ["runtime", "name"]:
                return filter_expressions.value_of(container.runtime)
            case ["image"]:
                return filter_expressions.value_of(container.image)
            case ["labels", *_]:
                return filter_expressions.label_of(container.labels, path)
        return filter_expressions.ABSENT

    return field


def _container(
    id: str,
    runtime: str,
    options_type: str | None,
    options: bytes | None,
    spec_type: str | None,
    spec: bytes | None,
    labels: str,
    image: str,
    snapshotter: str,
    snapshot_key: str,
    extensions: str,
    sandbox: str,
    created_at: int,
    updated_at: int,
) -> Container:
    return Container(
        id=id,
        runtime=runtime,
        runtime_options=payload_of(options_type, options),
        spec=payload_of(spec_type, spec),
        labels=decode_map(labels),
        image=image,
        snapshotter=snapshotter,
        snapshot_key=snapshot_key,
        extensions=decode_payloads(extensions),
        sandbox=sandbox,
        created_at=created_at,
        updated_at=updated_at,
    )
