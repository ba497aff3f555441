"""Sandbox records, the metadata of shared environments for tasks (docs/containerd 3.12)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from windlass.contracts.sandboxes import Sandbox, SandboxStore
from windlass.contracts.values import check_identifier, check_label_keys
from windlass.errors import AlreadyExists, InvalidArgument, NotFound
from windlass.filters import expressions as filter_expressions
from windlass.filters.fieldpaths import kept_labels, selects, updated_map
from windlass_metadata import nodes
from windlass_metadata.containers import check_extensions, updated_extensions
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
    "id, runtime, runtime_options_type, runtime_options, spec_type, spec, labels, extensions, sandboxer,"
    " created_at, updated_at"
)
MUTABLE = ("labels", "extensions", "spec", "runtime")
"""Fields of an update; all of them when it names none."""


class Sandboxes(SandboxStore):
    """One namespace's sandboxes."""

    def __init__(self, ledger: Ledger, namespace: str) -> None:
        """Read and write ``ledger``."""
        self._ledger = ledger
        self._namespace = namespace

    def get(self, id: str) -> Sandbox:
        """See the contract."""
        with self._ledger.read() as db:
            return self._existing(db, id)

    def list(self, filters: Sequence[str] = ()) -> list[Sandbox]:
        """See the contract."""
        accepts = filter_expressions.parse(filters)
        query = f"SELECT {COLUMNS} FROM sandboxes WHERE namespace = ? ORDER BY id"  # noqa: S608 - columns of ours
        with self._ledger.read() as db:
            sandboxes = [_sandbox(*row) for row in db.execute(query, (self._namespace,))]
        return [sandbox for sandbox in sandboxes if accepts(adaptor(sandbox))]

    def create(self, sandbox: Sandbox) -> Sandbox:
        """See the contract."""
        check_sandbox(sandbox)

        def insert(db: sqlite3.Connection) -> Sandbox:
            if self._find(db, sandbox.id):
                raise AlreadyExists(f"sandbox {sandbox.id} already exists")
            ensure_namespace(db, self._namespace)
            moment = now()
            return self._write(db, replace(sandbox, created_at=moment, updated_at=moment))

        return self._ledger.change(insert)

    def update(self, sandbox: Sandbox, fieldpaths: Sequence[str] = ()) -> Sandbox:
        """See the contract."""

        def write(db: sqlite3.Connection) -> Sandbox:
            current = self._existing(db, sandbox.id)
            changed = masked(current, sandbox, fieldpaths or MUTABLE)
            check_sandbox(changed)
            return self._write(db, replace(changed, updated_at=now()))

        return self._ledger.change(write)

    def delete(self, id: str) -> None:
        """See the contract."""

        def remove(db: sqlite3.Connection) -> None:
            self._existing(db, id)
            db.execute("DELETE FROM sandboxes WHERE namespace = ? AND id = ?", (self._namespace, id))

        self._ledger.change(remove, deletion=True)

    def _find(self, db: sqlite3.Connection, id: str) -> Sandbox | None:
        query = f"SELECT {COLUMNS} FROM sandboxes WHERE namespace = ? AND id = ?"  # noqa: S608 - columns of ours
        row = db.execute(query, (self._namespace, id)).fetchone()
        return row and _sandbox(*row)

    def _existing(self, db: sqlite3.Connection, id: str) -> Sandbox:
        sandbox = self._find(db, id)
        if sandbox is None:
            raise NotFound(f"sandbox {id} does not exist")
        return sandbox

    def _write(self, db: sqlite3.Connection, sandbox: Sandbox) -> Sandbox:
        sandbox = replace(sandbox, labels=kept_labels(sandbox.labels))
        db.execute(
            "INSERT OR REPLACE INTO sandboxes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._namespace,
                sandbox.id,
                sandbox.runtime,
                *payload_columns(sandbox.runtime_options),
                *payload_columns(sandbox.spec),
                encode_map(sandbox.labels),
                encode_payloads(sandbox.extensions),
                sandbox.sandboxer,
                sandbox.created_at,
                sandbox.updated_at,
            ),
        )
        self._ledger.touch(nodes.sandbox(self._namespace, sandbox.id))
        return sandbox


def check_sandbox(sandbox: Sandbox) -> None:
    """Raise InvalidArgument unless a sandbox may be recorded as it is."""
    check_identifier("sandbox ID", sandbox.id)
    check_label_keys(sandbox.labels)
    check_extensions(f"sandbox {sandbox.id}", sandbox.extensions)


def masked(current: Sandbox, sandbox: Sandbox, fieldpaths: Sequence[str]) -> Sandbox:
    """Return ``current`` with the fields of ``sandbox`` that ``fieldpaths`` name."""
    result = current
    for path in fieldpaths:
        if path == "spec":
            result = replace(result, spec=sandbox.spec)
        elif path == "runtime":
            result = replace(result, runtime=sandbox.runtime, runtime_options=sandbox.runtime_options)
        elif selects(path, "labels"):
            labels = updated_map("labels", result.labels, sandbox.labels, [path], f"sandbox {current.id}")
            result = replace(result, labels=labels)
        elif selects(path, "extensions"):
            result = replace(result, extensions=updated_extensions(result.extensions, sandbox.extensions, path))
        else:
            raise InvalidArgument(
                f"cannot update field {path[:128]!r} of sandbox {current.id}: only {', '.join(MUTABLE)} can change"
            )
    return result


def adaptor(sandbox: Sandbox) -> filter_expressions.Adaptor:
    """Show a sandbox to a filter."""

    def field(path: Sequence[str]) -> tuple[str, bool]:
        match path:
            case ["id"]:
                return filter_expressions.value_of(sandbox.id)
            case ["labels", *_]:
                return filter_expressions.label_of(sandbox.labels, path)
        return filter_expressions.ABSENT

    return field


def _sandbox(
    id: str,
    runtime: str,
    options_type: str | None,
    options: bytes | None,
    spec_type: str | None,
    spec: bytes | None,
    labels: str,
    extensions: str,
    sandboxer: str,
    created_at: int,
    updated_at: int,
) -> Sandbox:
    return Sandbox(
        id=id,
        runtime=runtime,
        runtime_options=payload_of(options_type, options),
        spec=payload_of(spec_type, spec),
        labels=decode_map(labels),
        extensions=decode_payloads(extensions),
        sandboxer=sandboxer,
        created_at=created_at,
        updated_at=updated_at,
    )
