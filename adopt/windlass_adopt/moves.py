"""The steps that bring what a plan has found to where Windlass looks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from windlass.errors import FailedPrecondition
from windlass_adopt import layouts, running
from windlass_adopt.journal import DIRECTORY
from windlass_adopt.places import CONTENT, CRI, KEPT, META_DB, METADATA, SANDBOXES, SNAPSHOT_DB, TASKS, Places
from windlass_adopt.plan import Plan
from windlass_adopt.steps import AnyStep, Link, Move, Note, Relink, Remount
from windlass_cri.record import NAMESPACE
from windlass_storage.snapshot_table import Kept

NOTE = (
    "The records of this containerd are with Windlass, at {root}.\n"
    "windlassd adopt --from {source} --state {state} --back gives them back.\n"
)
SUFFIXES = ("", "-wal", "-reserve", ".lock")
"""Of the files that are part of a database."""


def steps_of(plan: Plan) -> list[AnyStep]:
    """Return what is to be done, in order. Raises FailedPrecondition where something is in the way."""
    places = plan.places
    steps = [*_records_aside(places)]
    for name, kept in plan.snapshots.items():
        steps += _snapshotter(places, name, kept)
    steps += _directory(places, places.source / CONTENT, places.root / CONTENT)
    steps += _running(plan)
    steps += _database(places, METADATA, META_DB, places.root / METADATA)
    steps += _sockets(plan)
    return steps


def _records_aside(places: Places) -> Iterator[AnyStep]:
    """First of all: from now on containerd does not start, and would not know what it has any more."""
    yield Move.of(places.meta_db, kept_aside(places, METADATA, META_DB))
    if places.source != places.root:
        text = NOTE.format(root=places.root, source=places.source, state=places.source_state)
        yield Note(str(places.meta_db), text)


def kept_aside(places: Places, plugin: str, name: str) -> Path:
    """Return where one of containerd's files is kept meanwhile."""
    return places.root / DIRECTORY / KEPT / plugin / name


def _snapshotter(places: Places, name: str, kept: Sequence[Kept]) -> Iterator[AnyStep]:
    source, target = places.snapshots(name), places.own_snapshots(name)
    yield Move.of(source / SNAPSHOT_DB, kept_aside(places, source.name, SNAPSHOT_DB))
    yield from _database(places, source.name, SNAPSHOT_DB, target)
    if not layouts.changes(name):
        yield from _directory(places, source / "snapshots", target / "snapshots")
        return
    _check_device(source, target)
    if target != source and (target / "snapshots").is_dir():
        yield Move(str(target / "snapshots"), str(_aside(places, target / "snapshots")))
    yield from layouts.moved(name, source, target, kept)


def _database(places: Places, plugin: str, name: str, target: Path) -> Iterator[AnyStep]:
    """Bring a database that was made to where it belongs, with all the files that are part of it."""
    made, containerds = places.staged / plugin, places.source / plugin / name
    for file in [f"{name}{suffix}" for suffix in SUFFIXES]:
        there = (target / file).exists() and target / file != containerds
        if there:
            yield Move(str(target / file), str(places.aside / plugin / file))
        if (made / file).exists() or not there:
            # Also those that are only there later, which go with the database if it is given back.
            yield Move(str(made / file), str(target / file))


def _directory(places: Places, source: Path, target: Path, link: bool = False) -> Iterator[AnyStep]:
    """Bring a directory to where it belongs; ``link`` for those who know it by its old name."""
    if source == target or not source.is_dir():
        return
    if (source.is_symlink() and link) or target.is_symlink():
        named = target if target.is_symlink() else source
        raise FailedPrecondition(f"{named} is a symbolic link; put a directory there")
    source = source.resolve()
    _check_device(source, target)
    if target.is_dir():
        yield Move.of(target, _aside(places, target))
    yield Move.of(source, target)
    if link:
        yield Link(str(source), str(target))


def _aside(places: Places, target: Path) -> Path:
    """Return where an empty directory of Windlass's goes meanwhile, on the same file system."""
    for base in (places.root, places.state):
        if base in target.parents:
            return base / DIRECTORY / "replaced" / target.relative_to(base)
    return target.with_name(f".{target.name}-replaced")


def _running(plan: Plan) -> Iterator[AnyStep]:
    """Bundles and their work directories; a shim knows its bundle by its old name."""
    places = plan.places
    if places.source != places.root:
        for plugin in (TASKS, SANDBOXES):
            yield from _directory(places, places.source / plugin, places.root / plugin, link=True)
            for task in running.tasks(places.source_state, plugin):
                place = Path(plugin, task.namespace, task.id)
                yield Relink(str(task.bundle / "work"), str(places.source / place), str(places.root / place))
        yield from _directory(places, places.source / CRI, places.root / CRI, link=True)
    for plugin in (TASKS, SANDBOXES, CRI):
        yield from _directory(places, places.source_state / plugin, places.state / plugin, link=True)
    yield from _pods(plan)


def _pods(plan: Plan) -> Iterator[AnyStep]:
    """Files of CRI that are not where Windlass has them, or not as it has them."""
    places = plan.places
    for id in plan.statuses:
        status = places.root / CRI / "containers" / id / "status"
        yield Move(str(status), str(kept_aside(places, CRI, id)))
        yield Move(str(places.staged / CRI / id), str(status))
    for each in plan.contents:
        for sandbox in each.sandboxes if each.namespace.name == NAMESPACE else ():
            shm = f"sandboxes/{sandbox.id}/shm"
            yield Remount(str(places.state / CRI / shm), str(places.root / CRI / shm))


def _sockets(plan: Plan) -> Iterator[AnyStep]:
    """Shims send their events to the socket that they were told of, and clients are configured so."""
    places = plan.places
    for old in sorted(plan.addresses):
        for before, after in ((old, places.address), (f"{old}.ttrpc", places.ttrpc_address)):
            if before != after and (running.is_socket(before) or not os.path.lexists(before)):
                yield Link(before, after)


def _check_device(source: Path, target: Path) -> None:
    parent = target
    while not parent.exists():
        parent = parent.parent
    if source.stat().st_dev != parent.stat().st_dev:
        raise FailedPrecondition(
            f"{source} and {target} are on different file systems, so all of it would have to be copied; "
            f"adopt it where it is: windlassd --root {source.parent} adopt …"
        )
