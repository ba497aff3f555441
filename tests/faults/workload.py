"""A process that works with the stores and may be killed at any moment, and what must be there after that.

python tests/faults/workload.py ROOT JOURNAL SEED [nosync]

Every object is noted in the journal when the store has acknowledged it, and, before
it is given up, that it may be gone from then on.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path

from windlass.contracts.events import Envelope, Exchange
from windlass.contracts.images import Image
from windlass.contracts.values import Descriptor, Payload
from windlass.errors import NotFound
from windlass.process import faultpoints
from windlass_content.store import LocalStore
from windlass_metadata.database import Database
from windlass_metadata.store import MetadataStore
from windlass_snapshot_native.snapshotter import NativeSnapshotter

NS = "ns"
KEPT = {"containerd.io/gc.root": "test"}
STEPS = 40


class Silence(Exchange):
    """Nobody listens."""

    def publish(self, namespace: str, topic: str, event: Payload) -> None:
        pass

    def forward(self, envelope: Envelope) -> None:
        pass

    def subscribe(self, filters: Sequence[str] = ()) -> AbstractAsyncContextManager[AsyncIterator[Envelope]]:
        raise NotImplementedError


class Stores:
    """Everything that is kept below ``root``."""

    def __init__(self, root: Path, sync: bool = True) -> None:
        root.mkdir(exist_ok=True)
        self.native = NativeSnapshotter(root / "native")
        (root / "metadata").mkdir(exist_ok=True)
        database = Database(root / "metadata/meta.db", sync=sync)
        self.metadata = MetadataStore(database, LocalStore(root / "content"), {"native": self.native}, Silence())
        self.content = self.metadata.content(NS)
        self.images = self.metadata.images(NS)
        self.snapshots = self.metadata.snapshotter("native", NS)

    def close(self) -> None:
        self.metadata.close()
        self.native.close()


class Work:
    """What is done, in an order that the seed decides."""

    def __init__(self, stores: Stores, journal: int, seed: int) -> None:
        self.stores = stores
        self.journal = journal
        self.random = random.Random(seed)
        self.blobs: list[str] = []
        self.images: list[str] = []
        self.layers: list[str] = []

    def note(self, *words: str) -> None:
        os.write(self.journal, (" ".join(words) + "\n").encode())

    def run(self) -> None:
        actions = [self.blob, self.blob, self.image, self.layer, self.layer, self.give_up, self.garbage, self.collect]
        for step in range(STEPS):
            self.random.choice(actions)(f"{step}")
        self.collect("")

    def blob(self, name: str) -> None:
        data = self.random.randbytes(self.random.randrange(1, 20_000))
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        with closing(self.stores.content.writer(f"ref-{name}", len(data))) as writer:
            for at in range(0, len(data), 4096):
                writer.write(data[at : at + 4096])
            writer.commit(len(data), digest, KEPT)
        self.blobs.append(digest)
        self.note("blob", digest)

    def image(self, name: str) -> None:
        if self.blobs:
            self.stores.images.create(Image(f"image-{name}", Descriptor("application/x", self.blobs[-1], 1)))
            self.images.append(f"image-{name}")
            self.note("image", self.images[-1])

    def layer(self, name: str) -> None:
        parent = self.random.choice(["", *self.layers])
        (mount,) = self.stores.snapshots.prepare(f"key-{name}", parent, KEPT)
        with (Path(mount.source) / name).open("w") as file:
            file.write(name)
            file.flush()
            os.fsync(file.fileno())
        self.stores.snapshots.commit(f"layer-{name}", f"key-{name}", KEPT)
        self.layers.append(f"layer-{name}")
        self.note("layer", self.layers[-1])

    def give_up(self, _: str) -> None:
        kind = self.random.choice(["blob", "image", "layer"])
        known = {"blob": self.blobs, "image": self.images, "layer": self.layers}[kind]
        # An image keeps its blob, and a layer its parent: the youngest of these goes.
        if not known or (kind == "blob" and self.images):
            return
        name = known.pop()
        self.note("may-go", name)
        if kind == "blob":
            self.stores.content.delete(name)
        elif kind == "image":
            self.stores.images.delete(name)
        else:
            self.stores.snapshots.remove(name)

    def garbage(self, name: str) -> None:
        """Make what nothing holds."""
        with closing(self.stores.content.writer(f"garbage-{name}")) as writer:
            writer.write(f"garbage {name}".encode())
            writer.commit()
        self.stores.snapshots.prepare(f"garbage-{name}")

    def collect(self, _: str) -> None:
        self.stores.metadata.collect()


def verify(root: Path, journal: Path, sync: bool = True) -> list[str]:
    """Open the stores again and return what is not as it must be, one line each."""
    stores = Stores(root, sync)
    try:
        wrong = [f"missing {line}" for line in owed(journal) if not _is_there(stores, *line.split())]
        stores.metadata.collect()
        stores.metadata.collect()
        wrong += [str(problem) for problem in stores.metadata.check(deep=True)]
        wrong += [f"missing after collection {line}" for line in owed(journal) if not _is_there(stores, *line.split())]
        # and all of it works on
        with Path(os.devnull).open("wb") as nowhere:
            Work(stores, nowhere.fileno(), 1).blob("after")
        return wrong
    finally:
        stores.close()


def owed(journal: Path) -> list[str]:
    """Return what was acknowledged and not given up."""
    lines = journal.read_text().splitlines()
    gone = {line.split()[1] for line in lines if line.startswith("may-go ")}
    return [line for line in lines if not line.startswith("may-go ") and line.split()[1] not in gone]


def _is_there(stores: Stores, kind: str, name: str) -> bool:
    try:
        if kind == "image":
            return stores.images.get(name).name == name
        if kind == "layer":
            stores.snapshots.stat(name)
            key = f"look at {name}"
            (mount,) = stores.snapshots.view(key, name, KEPT)
            number = name.removeprefix("layer-")
            found = (Path(mount.source) / number).read_text() == number
            stores.snapshots.remove(key)
            return found
        with closing(stores.content.reader(Descriptor("", name, 0))) as reader:
            return f"sha256:{hashlib.sha256(reader.read_at(0, reader.size)).hexdigest()}" == name
    except (NotFound, FileNotFoundError):
        return False


def main() -> None:
    faultpoints.arm_from_environment()
    root, journal, seed, *rest = sys.argv[1:]
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stores = Stores(Path(root), sync="nosync" not in rest)
    Work(stores, descriptor, int(seed)).run()
    stores.close()


if __name__ == "__main__":
    main()
