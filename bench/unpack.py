"""Measures unpacking: an image of 600 MB and 20,000 files into snapshots of overlayfs.

python bench/unpack.py [--rounds N] [--image DIRECTORY] [--json FILE]     (as root; packages as for start.py, and isal)

Windlass and Debian's containerd take turns; with the Debian package `pigz` there is a third, containerd with its
`unpigz`. Then their trees are compared, and what the same bytes cost without any daemon is measured in the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import stat
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import large_image
from daemons import Daemon, containerd, remove_tree, windlassd

from windlass_api.containerd.services.diff.v1 import diff_pb2
from windlass_api.containerd.services.diff.v1.diff_pb2_grpc import DiffStub
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2
from windlass_api.containerd.services.snapshots.v1.snapshots_pb2_grpc import SnapshotsStub
from windlass_api.containerd.types.descriptor_pb2 import Descriptor

RESULTS = Path(__file__).parent / "results" / "unpack.json"
NAME = "example.org/large:1"
SNAPSHOTTER = "overlayfs"
TIMEOUT = 120.0

Seconds = dict[str, list[float]]


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes, on a disk that has written what came before."""
    os.sync()
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


@contextlib.contextmanager
def all_daemons(scratch: Path) -> Iterator[list[Daemon]]:
    """Run the daemons; afterwards nothing of them is left."""
    with contextlib.ExitStack() as stack:
        stack.callback(remove_tree, scratch)
        daemons = []
        for name in ("windlass", "containerd", *(["containerd_unpigz"] if shutil.which("unpigz") else [])):
            place = scratch / name
            place.mkdir()
            environment = {} if name.endswith("unpigz") else {"CONTAINERD_DISABLE_PIGZ": "1"}
            daemon = windlassd(place) if name == "windlass" else containerd(place, environment)
            daemon.name = name
            daemon.namespace = f"bench-{name}-{os.getpid()}"
            stack.callback(daemon.stop)
            daemons.append(daemon)
        yield daemons


def apply_layers(daemon: Daemon, layers: list[large_image.Layer]) -> float:
    """Return the seconds that `Diff.Apply` takes for all layers, whose blobs are there."""
    metadata = (("containerd-namespace", daemon.namespace),)
    took, parent = 0.0, ""
    with grpc.insecure_channel(f"unix:{daemon.address}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        snapshots, diff = SnapshotsStub(channel), DiffStub(channel)
        for number, layer in enumerate(layers):
            key, name = f"active-{number}", f"layer-{number}"
            labels = {"containerd.io/gc.root": "bench"}
            prepare = snapshots_pb2.PrepareSnapshotRequest(
                snapshotter=SNAPSHOTTER, key=key, parent=parent, labels=labels
            )
            mounts = snapshots.Prepare(prepare, metadata=metadata, timeout=TIMEOUT).mounts
            with layer.packed.open("rb") as file:
                digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            desc = Descriptor(
                media_type=f"{large_image.KIND}.layer.v1.tar+gzip", digest=digest, size=layer.packed.stat().st_size
            )
            request = diff_pb2.ApplyRequest(diff=desc, mounts=mounts)
            begin = time.perf_counter()
            applied = diff.Apply(request, metadata=metadata, timeout=TIMEOUT).applied
            took += time.perf_counter() - begin
            if applied.digest != layer.diff_id:
                raise RuntimeError(f"{daemon.name}: layer {number} became {applied.digest}, not {layer.diff_id}")
            commit = snapshots_pb2.CommitSnapshotRequest(snapshotter=SNAPSHOTTER, key=key, name=name, labels=labels)
            snapshots.Commit(commit, metadata=metadata, timeout=TIMEOUT)
            parent = name
        for number in reversed(range(len(layers))):
            remove = snapshots_pb2.RemoveSnapshotRequest(snapshotter=SNAPSHOTTER, key=f"layer-{number}")
            snapshots.Remove(remove, metadata=metadata, timeout=TIMEOUT)
    return took


def measure(daemon: Daemon, archive: Path, layers: list[large_image.Layer], found: Seconds) -> None:
    """Add one round's seconds; the image is there afterwards."""
    with contextlib.suppress(RuntimeError):
        daemon.run("images", "rm", "--sync", NAME)
    found.setdefault("import without unpack", []).append(
        seconds(lambda: daemon.run("images", "import", "--no-unpack", str(archive)))
    )
    os.sync()
    found.setdefault("Diff.Apply alone", []).append(apply_layers(daemon, layers))
    daemon.run("images", "rm", "--sync", NAME)
    found.setdefault("import", []).append(seconds(lambda: daemon.run("images", "import", str(archive))))


def floors(place: Path, layers: list[large_image.Layer]) -> dict[str, float]:
    """Return the seconds of single programs over the same bytes, one after the other."""
    plain, packed = [str(each.plain) for each in layers], [str(each.packed) for each in layers]
    tree = place / "tree"
    tree.mkdir()

    def run(*argv: str) -> None:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, timeout=TIMEOUT)

    def extract() -> None:
        for path in plain:
            run("tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "-f", path, "-C", str(tree))

    measures: dict[str, Callable[[], None]] = {
        "gzip -t": lambda: run("gzip", "-t", *packed),
        "igzip -t": lambda: run("igzip", "-t", *packed),
        "sha256sum of the plain layers": lambda: run("sha256sum", *plain),
        "tar -x of the plain layers": extract,
    }
    try:
        return {name: seconds(action) for name, action in measures.items()}
    finally:
        remove_tree(tree)


def facts(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what a tree is, path by path; names that share an inode show the first of them."""
    found: dict[str, tuple[object, ...]] = {}
    names: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        status, name = path.lstat(), str(path.relative_to(root))
        content = ""
        if stat.S_ISREG(status.st_mode):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
        }
        first = names.setdefault(status.st_ino, name)
        owner = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns, status.st_nlink)
        found[name] = (*owner, content, first, xattrs)
    return found


def compare(daemons: list[Daemon], place: Path) -> int:
    """Return how many paths the trees have; raises RuntimeError unless they are equal in every fact."""
    trees = []
    for daemon in daemons:
        target = place / f"mounted-{daemon.name}"
        target.mkdir()
        daemon.run("images", "mount", NAME, str(target))
        trees.append(facts(target))
        daemon.run("images", "unmount", str(target))
    for tree in trees[1:]:
        different = [name for name in trees[0].keys() | tree.keys() if trees[0].get(name) != tree.get(name)]
        if different:
            name = min(different)
            raise RuntimeError(
                f"{len(different)} paths differ, the first {name}: {trees[0].get(name)}, {tree.get(name)}"
            )
    return len(trees[0])


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image", type=Path, help="where the image is kept for the next run")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="windlass-unpack-"))
    place = options.image or scratch / "image"
    place.mkdir(exist_ok=True, parents=True)
    archive, layers = large_image.build(place, NAME)
    load = os.getloadavg()
    with all_daemons(scratch) as daemons:
        found: dict[str, Seconds] = {daemon.name: {} for daemon in daemons}
        for _ in range(options.rounds):
            for daemon in daemons:
                measure(daemon, archive, layers, found[daemon.name])
        paths = compare(daemons, scratch)
        alone = floors(scratch, layers)
    print(f"{paths} paths, equal in mode, owner, time, attributes, links and content; load before {load[0]:.2f}")
    medians = {name: {key: statistics.median(each) for key, each in row.items()} for name, row in found.items()}
    for name, row in medians.items():
        for key, value in row.items():
            ratio = value / medians["windlass"][key]
            print(f"{name:18} {key:24} {value:6.2f} s   windlass is {ratio:.2f} times as fast")
    for name, value in alone.items():
        print(f"{name:43} {value:6.2f} s")
    report = {"medians": medians, "all": found, "floors": alone, "paths": paths, "load before": load}
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
