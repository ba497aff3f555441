"""overlayfs through the daemon: many layers, layers that get their parent late, and mapped IDs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from compat.conftest import require_foreign_tools
from compat.images import Archive, busybox_layer, layer
from compat.machines import Machine

from windlass.contracts.content import ContentStore
from windlass.contracts.diff import LAYER_GZIP
from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import LABEL_GID_MAPPING, LABEL_UID_MAPPING
from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, FailedPrecondition
from windlass_api.containerd.services.containers.v1 import containers_pb2 as pb
from windlass_api.containerd.services.containers.v1.containers_pb2_grpc import ContainersStub
from windlass_conformance.content import digest_of
from windlass_linux import mounting
from windlass_remote.content import RemoteContent
from windlass_remote.diff import RemoteDiffer
from windlass_remote.peer import Peer
from windlass_remote.snapshots import RemoteSnapshotter

IMAGE = "docker.io/library/high:1"
LAYERS = 150
"""More than the 4096 bytes of options that mount(2) takes, whatever the names are: these are some 15,000."""
MAP = "0:100000:65536"
KEPT = {"containerd.io/gc.root": "while the test runs"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """An image of so many layers, each of which changes and deletes what the one below has."""
    require_foreign_tools()
    layers = [busybox_layer()]
    for number in range(1, LAYERS):
        files = {f"own/{number}": b"", "last": str(number).encode(), f"data/{number}": b""}
        layers.append(layer(files | {f"data/.wh.{number - 1}": b""}, ("own", "data")))
    return Archive(tmp_path_factory.mktemp("image") / "high.tar", IMAGE, layers)


@pytest.fixture(scope="module")
def machine(archive: Archive) -> Iterator[Machine]:
    """windlassd with the image, in a directory that mapped users may enter, which pytest's own they may not."""
    with TemporaryDirectory(prefix="windlass-overlay-") as directory:
        Path(directory).chmod(0o711)
        machine = Machine("windlass", Path(directory))
        try:
            machine.start()
            machine.ctr("images", "import", str(archive.path), timeout=120)
            yield machine
        finally:
            machine.close()


def test_a_container_runs_on_150_layers(machine: Machine) -> None:
    """It sees all of them, and can write."""
    script = "ls /own | wc -l; ls /data; cat /last; echo; echo x > /own/x; ls /own | wc -l"
    shown = machine.ctr("run", "--rm", IMAGE, machine.new_id(), "/bin/sh", "-c", script)
    assert shown.split() == [str(LAYERS - 1), str(LAYERS - 1), str(LAYERS - 1), str(LAYERS)]
    assert not machine.mounts()


def test_a_layer_is_made_on_150_others(machine: Machine) -> None:
    """Both sides are mounted for it."""
    name = machine.new_id()
    machine.ctr("run", IMAGE, name, "/bin/sh", "-c", "echo mine > /mine")
    machine.try_ctr("tasks", "rm", "-f", name)
    plain = ("--media-type", "application/vnd.oci.image.layer.v1.tar")
    assert "mine\n" in machine.ctr("snapshots", "diff", *plain, name)
    machine.ctr("containers", "rm", name)


def remap(machine: Machine, name: str, parent: str, script: str) -> None:
    """Give a container a snapshot and a user namespace of one mapping: Debian's ctr cannot mount such snapshots."""
    with Peer(machine.address, machine.namespace) as peer:
        snapshots, stub = RemoteSnapshotter(peer, "overlayfs"), ContainersStub(peer.channel)
        snapshots.prepare(f"{name}-mapped", parent, {LABEL_UID_MAPPING: MAP, LABEL_GID_MAPPING: MAP})
        container = peer.call(stub.Get, pb.GetContainerRequest(id=name)).container
        spec = json.loads(container.spec.value)
        container_id, host_id, size = map(int, MAP.split(":"))
        mapping = [{"containerID": container_id, "hostID": host_id, "size": size}]
        spec["process"]["args"] = ["/bin/sh", "-c", script]
        spec["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
        spec["linux"]["namespaces"].append({"type": "user"})
        container.spec.value = json.dumps(spec).encode()
        container.snapshot_key = f"{name}-mapped"
        peer.call(stub.Update, pb.UpdateContainerRequest(container=container))


def test_mapped_containers_see_files_as_their_own(machine: Machine, archive: Archive) -> None:
    """Nothing is copied: the layers are shown with other owners."""
    name = machine.new_id()
    script = "head -n 1 /proc/self/uid_map; ls -ln /last; ls -dn /; touch /mapped; ls -n /mapped; cat /own/1"
    machine.ctr("containers", "create", IMAGE, name)
    remap(machine, name, archive.chain_ids[-1], script)
    shown = machine.ctr("tasks", "start", name).split()
    assert "100000" in shown, "it has no user namespace, so nothing was shown"
    assert "65534" not in shown and "/mapped" in shown
    (written,) = machine.root.glob("io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/mapped")
    assert written.stat().st_uid == 100000
    machine.try_ctr("tasks", "rm", "-f", name)
    machine.ctr("containers", "rm", name)


# Layers that are unpacked side by side, and get their parents when they are committed


class Wire:
    """A namespace of the daemon."""

    def __init__(self, peer: Peer) -> None:
        self.snapshots = RemoteSnapshotter(peer, "overlayfs")
        self.content: ContentStore = RemoteContent(peer)
        self.differ = RemoteDiffer(peer)

    def blob(self, files: dict[str, bytes], directories: tuple[str, ...] = ()) -> Descriptor:
        data = gzip.compress(layer(files, directories), mtime=0)
        desc = Descriptor(LAYER_GZIP, digest_of(data), len(data))
        with suppress(AlreadyExists), closing(self.content.writer(desc.digest, desc.size, desc.digest)) as writer:
            writer.write(data)
            writer.commit(desc.size, desc.digest, KEPT)
        return desc


@pytest.fixture
def wire(machine: Machine) -> Iterator[Wire]:
    with Peer(machine.address, machine.namespace) as peer:
        wire = Wire(peer)
        yield wire
        for name in ("view", "key", "top", "base"):
            if any(info.name == name for info in wire.snapshots.walk()):
                wire.snapshots.remove(name)


def alone(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """Return an overlay of nothing but the directory that is bound, as containerd's client asks for."""
    return (Mount("overlay", "overlay", (f"upperdir={mounts[0].source}",)),)


def as_is(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    return mounts


def rebased(wire: Wire, how: Callable[[tuple[Mount, ...]], tuple[Mount, ...]]) -> None:
    """Commit ``base``, and on it ``top``, which was unpacked without it and deletes one of its files."""
    below = wire.blob({"gone": b"x", "stays": b"x", "old/file": b"x"}, ("old",))
    above = wire.blob({".wh.gone": b"", "old/.wh..wh..opq": b"", "old/new": b"x"}, ("old",))
    for name, desc, parent in (("base", below, ""), ("top", above, "base")):
        mounts = wire.snapshots.prepare("key", "", KEPT)
        wire.differ.apply(wire.content, desc, how(mounts) if parent else mounts)
        wire.snapshots.commit(name, "key", KEPT, parent)


def test_a_layer_gets_its_parent_when_it_is_committed(wire: Wire, tmp_path: Path) -> None:
    """What it deletes is deleted, though nothing was there to delete when it was unpacked."""
    rebased(wire, alone)
    assert wire.snapshots.stat("top").parent == "base"
    with mounting.mounted(wire.snapshots.view("view", "top", KEPT), tmp_path) as place:
        assert sorted(str(path.relative_to(place)) for path in Path(place).rglob("*")) == ["old", "old/new", "stays"]
    with pytest.raises(FailedPrecondition, match="remove"):
        wire.snapshots.remove("base")


def test_onto_a_bind_mount_a_deletion_is_carried_out_and_not_kept(wire: Wire, tmp_path: Path) -> None:
    """So a client that rebases has to say what it wants; containerd's own does."""
    rebased(wire, as_is)
    with mounting.mounted(wire.snapshots.view("view", "top", KEPT), tmp_path) as place:
        assert (Path(place) / "gone").exists()
