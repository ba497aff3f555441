"""What has changed since an adoption: said before everything is given back, which knows nothing of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from windlass.errors import FailedPrecondition
from windlass_adopt import records, running, snapshots
from windlass_adopt.bolt import Bolt
from windlass_adopt.layouts import changes
from windlass_adopt.moves import kept_aside
from windlass_adopt.places import META_DB, METADATA, SNAPSHOT_DB, SNAPSHOTTER, SNAPSHOTTERS, Places
from windlass_metadata.database import Database
from windlass_metadata.restoring import Contents, kept

BOOTSTRAP = "bootstrap.json"
LARGEST = 64 << 10
SHOWN = 5
LEFT = "left-by-windlass"


def check_tasks(places: Places) -> None:
    """Raise FailedPrecondition for tasks whose shims are Windlass's: containerd would not find them, nor end them."""
    ours = [f"{task.id} in {task.namespace}" for task in running.tasks(places.state) if _is_ours(task.bundle)]
    if ours:
        raise FailedPrecondition(
            f"{_shown(ours)} were started by Windlass, and containerd cannot take them; remove these tasks first"
        )


def differences(places: Places) -> list[str]:
    """Return what was made and what was removed since, in lines; containerd gets what it had, as it was."""
    database = places.root / METADATA / META_DB
    old = kept_aside(places, METADATA, META_DB)
    if not database.exists() or not old.exists():
        return []  # an adoption that was not finished
    with Bolt(old) as bolt:
        before = {name for each in records.read(bolt) for name in _names(each)}
    opened = Database(database)
    try:
        after = {name for each in kept(opened) for name in _names(each)}
    finally:
        opened.close()
    lines = []
    if made := sorted(after - before):
        lines.append(f"containerd does not know what was made since: {_shown(made)}")
    if gone := sorted(before - after):
        lines.append(f"containerd still lists what was removed since, remove it there, too: {_shown(gone)}")
    return lines


def new_snapshots(places: Places) -> list[tuple[Path, Path]]:
    """Return the directories of snapshots that containerd does not know, and where they go out of its way."""
    found = []
    for name in SNAPSHOTTERS:
        database = kept_aside(places, f"{SNAPSHOTTER}.{name}", SNAPSHOT_DB)
        top = places.own_snapshots(name) / "snapshots"
        if changes(name) or not database.exists() or not top.is_dir():
            continue
        with Bolt(database) as bolt:
            known = {str(each.id) for each in snapshots.read(bolt)}
        aside = places.snapshots(name) / LEFT
        found += [(each, aside / each.name) for each in sorted(top.iterdir()) if each.name not in known]
    return found


def _names(contents: Contents) -> Iterator[str]:
    where = f"in {contents.namespace.name}"
    yield from (f"image {each.name} {where}" for each in contents.images)
    yield from (f"container {each.id} {where}" for each in contents.containers)
    yield from (f"snapshot {each.key} of {each.snapshotter} {where}" for each in contents.snapshots)


def _is_ours(bundle: Path) -> bool:
    """Return whether a bundle's shim was forked by Windlass, which says so in the bundle."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        with (bundle / BOOTSTRAP).open("rb") as file:
            document = json.loads(file.read(LARGEST))
        return isinstance(document, dict) and bool(document.get("runtime"))
    return False


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
