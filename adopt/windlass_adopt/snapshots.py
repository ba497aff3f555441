"""What the `metadata.db` of one of containerd's snapshotters holds (docs/containerd 3.7)."""

from __future__ import annotations

from windlass.contracts.snapshots import Kind, Usage
from windlass_adopt.bolt import Bolt, Bucket
from windlass_adopt.golang import moment, signed, strings, unsigned
from windlass_storage.snapshot_table import Kept

LARGEST_ID = 1 << 62


def read(bolt: Bolt) -> list[Kept]:
    """Return every snapshot, by ID. Raises DataLoss for a damaged file."""
    named = dict(bolt.root.each("v1", "snapshots"))
    ids = {name: _id(bucket) for name, bucket in named.items()}
    if len(set(ids.values())) != len(ids):
        raise bolt.damaged(0, "two snapshots have one ID")
    kept = [_kept(name, ids[name], bucket, ids) for name, bucket in named.items()]
    _check_chains(bolt, {each.id: each.parent for each in kept})
    return sorted(kept, key=lambda each: each.id)


def _kept(name: str, id: int, bucket: Bucket, ids: dict[str, int]) -> Kept:
    kind, parent = bucket.get("kind") or b"", bucket.text("parent")
    if kind not in (b"\x01", b"\x02", b"\x03"):
        raise bucket.wrong(f"its kind is {kind.hex() or 'missing'}")
    if parent and (parent not in ids or parent == name):
        raise bucket.wrong(f"its parent {parent} does not exist")
    return Kept(
        id,
        name,
        Kind(kind[0]),
        ids[parent] if parent else None,
        strings(bucket, "labels"),
        Usage(max(0, signed(bucket, "inodes")), max(0, signed(bucket, "size"))),
        moment(bucket, "createdat"),
        moment(bucket, "updatedat"),
    )


def _id(bucket: Bucket) -> int:
    id = unsigned(bucket, "id")
    if not 0 < id < LARGEST_ID:
        raise bucket.wrong(f"its ID is {id}")
    return id


def _check_chains(bolt: Bolt, parents: dict[int, int | None]) -> None:
    """Raise DataLoss for a snapshot that is its own ancestor."""
    sound: set[int] = set()
    for id in parents:
        chain: list[int] = []
        below: int | None = id
        while below is not None and below not in sound:
            if len(chain) > len(parents):
                raise bolt.damaged(0, f"the parents of snapshot {id} lead in a circle")
            chain.append(below)
            below = parents[below]
        sound.update(chain)
