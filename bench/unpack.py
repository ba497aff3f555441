"""Measures unpacking: an image of 600 MB and 20,000 files into snapshots of overlayfs.

python bench/unpack.py [--rounds N] [--image DIRECTORY] [--json FILE]     (as root; packages as for start.py, and isal)

Windlass and Debian's containerd take turns, each time on an empty ext4 of its own; with the Debian package `pigz`
there is a third, containerd with `unpigz`. Their trees are compared, and what the same bytes cost without any daemon
is measured in the same run.
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

DISK = 6 << 30

Seconds = dict[str, list[float]]
Tree = dict[str, tuple[object, ...]]


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes, on a disk that has written what came before."""
    os.sync()
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


@contextlib.contextmanager
def fresh_disk(place: Path) -> Iterator[Path]:
    """Mount an empty ext4, since one where files were deleted a moment ago is slow for minutes."""
    image, mounted = place / "disk.img", place / "disk"
    with image.open("wb") as file:
        file.truncate(DISK)
    mounted.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
    try:
        yield mounted
    finally:
        remove_tree(mounted / "daemon")
        subprocess.run(["umount", str(mounted)], check=True)
        image.unlink()
        mounted.rmdir()


@contextlib.contextmanager
def running(name: str, scratch: Path) -> Iterator[Daemon]:
    """Run a daemon on a disk of its own; afterwards nothing of it is left."""
    with fresh_disk(scratch) as disk, contextlib.ExitStack() as stack:
        place = disk / "daemon"
        place.mkdir()
        environment = {} if name.endswith("unpigz") else {"CONTAINERD_DISABLE_PIGZ": "1"}
        daemon = windlassd(place) if name == "windlass" else containerd(place, environment)
        daemon.namespace = f"bench-{name}-{os.getpid()}"
        stack.callback(daemon.stop)
        yield daemon


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
    return took


def measure(daemon: Daemon, archive: Path, layers: list[large_image.Layer], found: Seconds) -> Tree:
    """Add one round's seconds, and return the tree."""
    found.setdefault("ctr images import", []).append(seconds(lambda: daemon.run("images", "import", str(archive))))
    tree = mounted(daemon)
    os.sync()
    found.setdefault("Diff.Apply alone", []).append(apply_layers(daemon, layers))
    return tree


def floors(place: Path, layers: list[large_image.Layer]) -> dict[str, float]:
    """Return the seconds of single programs over the same bytes, one after the other."""
    plain, packed = [str(each.plain) for each in layers], [str(each.packed) for each in layers]
    tree = place / "daemon"
    tree.mkdir()

    def run(*argv: str) -> None:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, timeout=TIMEOUT)

    def extract() -> None:
        for path in plain:
            run("tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "-f", path, "-C", str(tree))

    measures: dict[str, Callable[[], None]] = {
        "openssl sha256 of the plain layers": lambda: run("openssl", "sha256", *plain),
        "gzip -t": lambda: run("gzip", "-t", *packed),
        "igzip -t": lambda: run("igzip", "-t", *packed),
        "sha256sum of the plain layers": lambda: run("sha256sum", *plain),
        "tar -x of the plain layers": extract,
    }
    return {name: seconds(action) for name, action in measures.items()}


def facts(root: Path) -> Tree:
    """Return what a tree is, path by path; names that share an inode show the first of them."""
    found: Tree = {}
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


def mounted(daemon: Daemon) -> Tree:
    """Return what the image's tree is."""
    target = daemon.scratch / "mounted"
    target.mkdir()
    daemon.run("images", "mount", NAME, str(target))
    try:
        return facts(target)
    finally:
        daemon.run("images", "unmount", str(target))


def check_equal(name: str, tree: Tree, other: Tree) -> None:
    """Raise RuntimeError unless two trees are the same in every fact."""
    different = [path for path in tree.keys() | other.keys() if tree.get(path) != other.get(path)]
    if different:
        path = min(different)
        raise RuntimeError(f"{name}: {len(different)} paths differ, first {path}: {tree.get(path)}, {other.get(path)}")


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
    names = ["windlass", "containerd", *(["containerd_unpigz"] if shutil.which("unpigz") else [])]
    found: dict[str, Seconds] = {name: {} for name in names}
    tree: Tree = {}
    try:
        for _ in range(options.rounds):
            for name in names:
                with running(name, scratch) as daemon:
                    other = measure(daemon, archive, layers, found[name])
                check_equal(name, tree or other, other)
                tree = other
        with fresh_disk(scratch) as disk:
            alone = floors(disk, layers)
    finally:
        remove_tree(scratch)
    print(f"{len(tree)} paths, equal in mode, owner, time, attributes, links and content; load before {load[0]:.2f}")
    medians = {name: {key: statistics.median(each) for key, each in row.items()} for name, row in found.items()}
    for name, row in medians.items():
        for key, value in row.items():
            ratio = value / medians["windlass"][key]
            print(f"{name:18} {key:24} {value:6.2f} s   windlass is {ratio:.2f} times as fast")
    for name, value in alone.items():
        print(f"{name:43} {value:6.2f} s")
    report = {"medians": medians, "all": found, "floors": alone, "paths": len(tree), "load before": load}
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
