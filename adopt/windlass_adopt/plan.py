"""What an adoption would take, and how; nothing is changed by looking."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from windlass.contracts.snapshots import Kind
from windlass.errors import FailedPrecondition, NotFound
from windlass_adopt import cri, layouts, records, running, snapshots
from windlass_adopt.bolt import Bolt
from windlass_adopt.places import CONTENT, CRI, OLD_TASKS, SNAPSHOT_DB, SNAPSHOTTERS, Places
from windlass_adopt.running import Task
from windlass_cri.record import NAMESPACE, Status
from windlass_metadata.restoring import Contents, Snapshot
from windlass_storage.snapshot_table import Kept


@dataclass
class Plan:
    """What was found, and what cannot be taken and why."""

    places: Places
    version: int
    contents: list[Contents]
    snapshots: dict[str, list[Kept]]
    """The snapshotters that are taken over, and their snapshots."""
    tasks: list[Task]
    addresses: set[str]
    left: list[str] = field(default_factory=list)
    statuses: dict[str, Status] = field(default_factory=dict)
    """Of containers of CRI, by ID."""

    def count(self) -> dict[str, int]:
        """Return how many of each kind are taken."""
        blobs = {blob.digest for each in self.contents for blob in each.blobs}
        return {
            "namespaces": len(self.contents),
            "images": sum(len(each.images) for each in self.contents),
            "containers": sum(len(each.containers) for each in self.contents),
            "tasks": len(self.tasks),
            "sandboxes": sum(len(each.sandboxes) for each in self.contents),
            "leases": sum(len(each.leases) for each in self.contents),
            "blobs": len(blobs),
            "snapshots": sum(map(len, self.snapshots.values())),
        }

    def bytes(self) -> int:
        """Return the size of all blobs."""
        return sum({blob.digest: blob.size for each in self.contents for blob in each.blobs}.values())


def look(places: Places, locks: contextlib.ExitStack) -> Plan:
    """Return what is to be taken; the databases stay locked until ``locks`` is closed.

    Raises FailedPrecondition while containerd runs, DataLoss for damaged databases, NotFound without one.
    """
    addresses = running.addresses(places)
    running.check_silent(addresses)
    meta = open_database(places.meta_db, locks)
    found = records.read(meta)
    plan = Plan(places, records.version(meta), found, {}, running.tasks(places.source_state), addresses)
    for name in sorted({row.snapshotter for each in found for row in each.snapshots} | _with_files(places)):
        try:
            plan.snapshots[name] = _snapshots(places, name, locks)
            plan.left += layouts.problems(name, places.snapshots(name))
        except NotFound as error:
            plan.left.append(str(error))
    known = {name: {each.name: each.kind for each in kept} for name, kept in plan.snapshots.items()}
    for each in found:
        each.snapshots = _known(plan, each, known)
        _check_containers(plan, each)
        if each.namespace.name == NAMESPACE:
            plan.left += cri.convert(each)
            plan.statuses = _statuses(places, each)
    _check_blobs(plan)
    old = running.tasks(places.source_state, OLD_TASKS)
    plan.left += [f"task {task.id} in {task.namespace}: its shim is of the runtime v1, run it anew" for task in old]
    return plan


def open_database(path: Path, locks: contextlib.ExitStack) -> Bolt:
    """Open and lock a database of containerd's. Raises NotFound, FailedPrecondition, DataLoss."""
    try:
        bolt = locks.enter_context(Bolt(path))
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist; --from must be the root directory of a containerd") from None
    except OSError as error:
        raise FailedPrecondition(f"{path} cannot be read: {error.strerror}; run as root") from None
    running.lock(bolt)
    return bolt


def _with_files(places: Places) -> set[str]:
    return {name for name in SNAPSHOTTERS if (places.snapshots(name) / SNAPSHOT_DB).exists()}


def _snapshots(places: Places, name: str, locks: contextlib.ExitStack) -> list[Kept]:
    if name not in SNAPSHOTTERS:
        raise NotFound(f"snapshots of {name}: Windlass has no such snapshotter")
    path = places.snapshots(name) / SNAPSHOT_DB
    if not path.exists():
        raise NotFound(f"snapshots of {name}: {path} does not exist, containerd's root_path for it may be elsewhere")
    return snapshots.read(open_database(path, locks))


def _known(plan: Plan, contents: Contents, known: dict[str, dict[str, Kind]]) -> list[Snapshot]:
    """Return the snapshots of a namespace that their snapshotters have, with their kinds."""
    found, lost = [], Counter[str]()
    for row in contents.snapshots:
        kind = known.get(row.snapshotter, {}).get(row.backend)
        if kind is None:
            lost[row.snapshotter] += 1
        else:
            found.append(replace(row, kind=kind))
    for snapshotter, count in lost.items():
        if snapshotter in known:
            plan.left.append(f"{count} snapshots of {snapshotter} in {contents.namespace.name}: it does not have them")
        else:
            plan.left.append(f"{count} snapshots of {snapshotter} in {contents.namespace.name}")
    return found


def _check_containers(plan: Plan, contents: Contents) -> None:
    have = {(row.snapshotter, row.key) for row in contents.snapshots}
    for each in contents.containers:
        if each.snapshot_key and (each.snapshotter, each.snapshot_key) not in have:
            plan.left.append(f"snapshot of container {each.id} in {contents.namespace.name}: see above")


def _statuses(places: Places, contents: Contents) -> dict[str, Status]:
    """Return the status of each container of CRI."""
    found = {}
    for container in contents.containers:
        path = places.source / CRI / "containers" / container.id / "status"
        if path.exists():
            found[container.id] = cri.status(path)
    return found


def _check_blobs(plan: Plan) -> None:
    blobs = plan.places.source / CONTENT / "blobs"
    for each in plan.contents:
        there = [info for info in each.blobs if (blobs / info.digest.replace(":", "/")).is_file()]
        if len(there) != len(each.blobs):
            plan.left.append(f"{len(each.blobs) - len(there)} blobs in {each.namespace.name}: their files are lost")
            each.blobs = there


def refuse_what_is_left(plan: Plan) -> None:
    """Raise FailedPrecondition when something cannot be taken."""
    if plan.left:
        raise FailedPrecondition(f"not all can be taken: {'; '.join(plan.left)}; adopt the rest with --leave-behind")
