"""Makes the databases of an adoption, below `ROOT/adoption/staged`: all that needs space on the disk."""

from __future__ import annotations

import shutil

from windlass.errors import Error, FailedPrecondition
from windlass_adopt.places import CONTENT, CRI, META_DB, METADATA, SNAPSHOT_DB, SNAPSHOTTER, TASKS, Places
from windlass_adopt.plan import Plan
from windlass_metadata.database import Database
from windlass_metadata.restoring import is_empty, restore
from windlass_storage.disks import disk_errors, private_directory
from windlass_storage.metastore import Metastore


def check_target(places: Places) -> None:
    """Raise FailedPrecondition unless the root is one of a Windlass that holds nothing."""
    path = places.root / METADATA / META_DB
    if path.exists() and path != places.meta_db:
        database = Database(path)
        try:
            if not is_empty(database):
                raise FailedPrecondition(
                    f"Windlass's root {places.root} holds records already; choose another one by --root"
                )
        finally:
            database.close()
    if places.state != places.source_state and any((places.state / TASKS).glob("*/*")):
        raise FailedPrecondition(f"tasks of a Windlass are in {places.state}; choose another directory by --state")
    if places.root != places.source and any((places.root / CONTENT / "blobs").glob("*/*")):
        raise FailedPrecondition(f"Windlass's root {places.root} holds blobs already; choose another one by --root")


def stage(plan: Plan) -> None:
    """Make all databases. Raises NoSpace; then nothing is left of them."""
    places = plan.places
    discard(places)
    try:
        with disk_errors(f"make databases in {places.staged}", places.root):
            for name, kept in plan.snapshots.items():
                directory = places.staged / f"{SNAPSHOTTER}.{name}"
                private_directory(directory)
                store = Metastore(directory / SNAPSHOT_DB)
                try:
                    store.restore(kept)
                finally:
                    store.close()
            private_directory(places.staged / CRI)
            for id, status in plan.statuses.items():
                status.write(places.staged / CRI / id)
            private_directory(places.staged / METADATA)
            database = Database(places.staged / METADATA / META_DB)
            try:
                restore(database, plan.contents)
            finally:
                database.close()
    except (Error, OSError):
        discard(places)
        raise


def discard(places: Places) -> None:
    """Remove what was made and not used."""
    shutil.rmtree(places.staged, ignore_errors=True)
