"""A snapshotter in memory, which keeps names and no files, to put metadata in front of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import LABEL_REF, Info, Kind, Snapshotter, Usage
from windlass.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from windlass.filters import expressions as filter_expressions
from windlass.filters.fieldpaths import kept_labels, updated_labels


class MemorySnapshotter(Snapshotter):
    """``before`` is called with method and key, so that a test can look in, fail or wait there.

    With ``remote`` it has committed snapshots by their ``containerd.io/snapshot.ref``, as stargz has.
    """

    def __init__(self, remote: bool = False) -> None:
        self.snapshots: dict[str, Info] = {}
        self.lock = threading.RLock()
        self.remote = remote
        self.cleanups = 0
        self.before: Callable[[str, str], None] = lambda method, key: None

    def stat(self, key: str) -> Info:
        self.before("stat", key)
        return self._get(key)

    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        with self.lock:
            old = self._get(info.name)
            labels = updated_labels(old.labels, info.labels, fieldpaths, info.name)
            self.snapshots[info.name] = replace(old, labels=labels, updated_at=time.time_ns())
            return self.snapshots[info.name]

    def usage(self, key: str) -> Usage:
        return Usage(1, 0) if self._get(key).kind != Kind.VIEW else Usage(0, 0)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        if self._get(key).kind == Kind.COMMITTED:
            raise FailedPrecondition(f"snapshot {key} is committed")
        return (Mount("bind", f"/memory/{key}"),)

    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        self.before("prepare", key)
        if self.remote and self._has_ref((labels or {}).get(LABEL_REF, ""), parent):
            raise AlreadyExists("target snapshot")
        return self._make(Kind.ACTIVE, key, parent, labels)

    def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        return self._make(Kind.VIEW, key, parent, labels)

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        self.before("commit", key)
        with self.lock:
            if name in self.snapshots:
                raise AlreadyExists(f"snapshot {name} already exists")
            old = self._get(key)
            if old.kind != Kind.ACTIVE:
                raise FailedPrecondition(f"snapshot {key} is not active")
            del self.snapshots[key]
            self._put(Kind.COMMITTED, name, old.parent or parent, labels)
        self.before("committed", name)

    def remove(self, key: str) -> None:
        self.before("remove", key)
        with self.lock:
            self._get(key)
            if any(info.parent == key for info in self.snapshots.values()):
                raise FailedPrecondition("cannot remove snapshot with child")
            del self.snapshots[key]

    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        accepts = filter_expressions.parse(filters)
        infos = list(self.snapshots.values())
        return (info for info in infos if accepts(partial(_field, info)))

    def cleanup(self) -> None:
        self.before("cleanup", "")
        self.cleanups += 1

    def _make(self, kind: Kind, key: str, parent: str, labels: Mapping[str, str] | None) -> tuple[Mount, ...]:
        with self.lock:
            if key in self.snapshots:
                raise AlreadyExists(f"snapshot {key} already exists")
            if parent and self._get(parent).kind != Kind.COMMITTED:
                raise InvalidArgument(f"parent {parent} is not committed")
            self._put(kind, key, parent, labels)
            return self.mounts(key)

    def _put(self, kind: Kind, name: str, parent: str, labels: Mapping[str, str] | None) -> None:
        moment = time.time_ns()
        self.snapshots[name] = Info(kind, name, parent, kept_labels(labels or {}), moment, moment)

    def _get(self, key: str) -> Info:
        if key not in self.snapshots:
            raise NotFound(f"snapshot {key} does not exist")
        return self.snapshots[key]

    def _has_ref(self, ref: str, parent: str) -> bool:
        return bool(ref) and any(
            info.labels.get(LABEL_REF) == ref and info.parent == parent and info.kind == Kind.COMMITTED
            for info in self.snapshots.copy().values()
        )


def _field(info: Info, path: Sequence[str]) -> tuple[str, bool]:
    match list(path):
        case ["kind"]:
            return info.kind.name.lower(), True
        case ["name"]:
            return info.name, True
        case ["parent"]:
            return info.parent, True
        case ["labels", *_]:
            return filter_expressions.label_of(info.labels, path)
    return "", False
