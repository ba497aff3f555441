"""Images as the field has them, by the Transfer service of a real daemon: what is stored, unpacked and told."""

from __future__ import annotations

import io
import json
import queue
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from compat.images import OCI, digest_of
from compat.registries import needs_registry, registry
from compat.scratch_daemon import ScratchDaemon, needs_ctr, needs_root
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from images import tools
from windlass_api.containerd.services.content.v1 import content_pb2, content_pb2_grpc
from windlass_api.containerd.services.images.v1 import images_pb2, images_pb2_grpc
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2, snapshots_pb2_grpc
from windlass_api.containerd.services.streaming.v1 import streaming_pb2, streaming_pb2_grpc
from windlass_api.containerd.services.transfer.v1 import transfer_pb2, transfer_pb2_grpc
from windlass_api.containerd.types import platform_pb2
from windlass_api.containerd.types.transfer import imagestore_pb2, importexport_pb2, progress_pb2, registry_pb2
from windlass_api.containerd.types.transfer import streaming_pb2 as data_pb2

pytestmark = [needs_root, needs_ctr]

AMD64 = platform_pb2.Platform(os="linux", architecture="amd64")
ARM64 = platform_pb2.Platform(os="linux", architecture="arm64")
BASE = imagestore_pb2.ImageReference(name="example.org/base", is_prefix=True, allow_overwrite=True)
KEEP = "containerd.io/gc.ref.content."
Step = progress_pb2.Progress


def packed(message: Message) -> Any:
    return Any(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString())


class Client:
    """One namespace of a daemon."""

    def __init__(self, channel: grpc.Channel, namespace: str) -> None:
        self._channel = channel
        self._metadata = (("containerd-namespace", namespace),)
        self._count = 0

    def transfer(self, source: Message, destination: Message) -> list[Step]:
        """Move an image, and return what is told of it."""
        steps: list[Step] = []
        name, _ = self._stream(steps)
        request = transfer_pb2.TransferRequest(
            source=packed(source),
            destination=packed(destination),
            options=transfer_pb2.TransferOptions(progress_stream=name),
        )
        transfer_pb2_grpc.TransferStub(self._channel).Transfer(request, metadata=self._metadata, timeout=60)
        self._reader.join(10)
        return steps

    def load(self, archive: bytes, *unpacks: platform_pb2.Platform, snapshotter: str = "overlayfs") -> list[Step]:
        """Import an archive for some platforms, and unpack it for them."""
        name, messages = self._stream([])
        for start in range(0, len(archive), 32 << 10):
            messages.put(packed(data_pb2.Data(data=archive[start : start + (32 << 10)])))
        messages.put(None)
        store = imagestore_pb2.ImageStore(
            platforms=unpacks,
            extra_references=[BASE],
            unpacks=[imagestore_pb2.UnpackConfiguration(platform=each, snapshotter=snapshotter) for each in unpacks],
        )
        return self.transfer(importexport_pb2.ImageImportStream(stream=name), store)

    def images(self) -> dict[str, str]:
        """Return names and digests."""
        found = images_pb2_grpc.ImagesStub(self._channel).List(images_pb2.ListImagesRequest(), metadata=self._metadata)
        return {image.name: image.target.digest for image in found.images}

    def snapshots(self, snapshotter: str = "overlayfs") -> dict[str, dict[str, str]]:
        """Return names and labels."""
        request = snapshots_pb2.ListSnapshotsRequest(snapshotter=snapshotter)
        parts = snapshots_pb2_grpc.SnapshotsStub(self._channel).List(request, metadata=self._metadata)
        return {info.name: dict(info.labels) for part in parts for info in part.info}

    def labels(self, digest: str) -> dict[str, str]:
        """Return those of a blob."""
        stub = content_pb2_grpc.ContentStub(self._channel)
        return dict(stub.Info(content_pb2.InfoRequest(digest=digest), metadata=self._metadata).info.labels)

    def _stream(self, steps: list[Step]) -> tuple[str, queue.Queue[Any | None]]:
        self._count += 1
        name, messages = f"stream-{self._count}", queue.Queue[Any | None]()
        messages.put(packed(streaming_pb2.StreamInit(id=name)))
        stream = streaming_pb2_grpc.StreamingStub(self._channel).Stream(
            iter(messages.get, None), metadata=self._metadata
        )
        next(stream)

        def read() -> None:
            try:
                steps.extend(Step.FromString(message.value) for message in stream)
            except grpc.RpcError:
                pass  # the daemon has ended it

        self._reader = threading.Thread(target=read, daemon=True)
        self._reader.start()
        return name, messages


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScratchDaemon]:
    machine = ScratchDaemon(tmp_path_factory.mktemp("m"))
    try:
        machine.start()
        yield machine
    finally:
        machine.close()


@pytest.fixture
def client(daemon: ScratchDaemon, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of a namespace of its own."""
    with daemon.channel() as channel:
        yield Client(channel, f"t{abs(hash(request.node.name))}")


def archive(name: str, *layers: bytes, architecture: str = "amd64") -> bytes:
    """Return an archive with one image."""
    layout = tools.Layout()
    document = {
        "schemaVersion": 2,
        "config": layout.blob(tools.config(layers, architecture=architecture), f"{OCI}.config.v1+json"),
        "layers": [layout.blob(layer, f"{OCI}.layer.v1.tar") for layer in layers],
    }
    manifest = layout.blob(json.dumps(document).encode(), f"{OCI}.manifest.v1+json")
    platform = {"os": "linux", "architecture": architecture}
    layout.manifests.append({**manifest, "platform": platform, "annotations": tools.named(name)})
    return tools.packed(layout.files())


def directories(*names: str) -> bytes:
    """Return a layer of directories."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
    return out.getvalue()


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
def test_whiteouts_whose_entries_are_directories(
    daemon: ScratchDaemon, client: Client, tmp_path: Path, snapshotter: str
) -> None:
    """Their names say what they are, wherever they are unpacked."""
    first, second = directories("d", "d/old", "gone", "x"), directories(".wh.gone", "d/.wh.old")
    client.load(archive("dirs", first, second), AMD64, snapshotter=snapshotter)

    chain = next(name for name, labels in client.snapshots(snapshotter).items() if len(labels) == 3)
    target = tmp_path / "root"
    target.mkdir()
    arguments = ["-n", client._metadata[0][1], "snapshots", "--snapshotter", snapshotter]
    assert daemon.ctr(*arguments, "view", "seen", chain).returncode == 0
    mount = daemon.ctr(*arguments, "mounts", str(target), "seen").stdout
    tree = run_mounted(mount, target)

    assert tree == ["d", "x"]


def run_mounted(mount: str, target: Path) -> list[str]:
    """Make the mount that `ctr` prints, and return what is in it."""
    subprocess.run(["sh", "-c", mount], check=True)
    try:
        return sorted(str(path.relative_to(target)) for path in target.rglob("*"))
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_what_labels_a_snapshot_has(client: Client) -> None:
    """Those that containerd writes: its own name, its layer, and what is below."""
    first, second = tools.plain_tar("a"), tools.plain_tar("b")
    client.load(archive("labels", first, second), AMD64)

    one, two = digest_of(first), digest_of(second)
    chain = digest_of(f"{one} {two}".encode())
    assert client.snapshots() == {
        one: {"containerd.io/snapshot.ref": one, "containerd.io/snapshot/diff-id": one},
        chain: {
            "containerd.io/snapshot.ref": chain,
            "containerd.io/snapshot/diff-id": two,
            "containerd.io/snapshot/parent-chain-id": one,
        },
    }


def test_an_image_for_another_processor_is_unpacked(client: Client) -> None:
    """`check_platform_supported` is false: the operating system has to fit, the rest is an emulator's."""
    layer = tools.plain_tar("arm")
    client.load(archive("arm", layer, architecture="arm64"), ARM64)

    assert list(client.snapshots()) == [digest_of(layer)]
    with pytest.raises(grpc.RpcError, match="nothing can be unpacked as asked for"):
        client.load(archive("arm", layer), platform_pb2.Platform(os="windows", architecture="amd64"))


def test_platforms_are_checked_where_that_is_configured(tmp_path: Path) -> None:
    """With `check_platform_supported` an unpack for another processor is refused, and one of two is left out."""
    machine = ScratchDaemon(tmp_path)
    config = tmp_path / "config.toml"
    config.write_text('version = 3\n[plugins."io.containerd.transfer.v1.local"]\ncheck_platform_supported = true\n')
    machine._arguments += ["--config", config]
    arm, amd = tools.plain_tar("arm"), tools.plain_tar("amd")
    try:
        machine.start()
        with machine.channel() as channel:
            client = Client(channel, "checked")
            with pytest.raises(grpc.RpcError, match="nothing can be unpacked as asked for"):
                client.load(archive("arm", arm, architecture="arm64"), ARM64)
            client.load(archive("amd", amd), ARM64, AMD64)
            assert list(client.snapshots()) == [digest_of(amd)]
    finally:
        machine.close()
    assert "linux/arm64 cannot be unpacked" in machine.log.read_text()


def test_other_platforms_are_kept_by_labels(client: Client) -> None:
    """An index names all of its children in its own order, those too of which only the manifest is here."""
    client.load(tools.buildah_list().data, AMD64)

    [digest] = client.images().values()
    children = client.labels(digest)
    assert sorted(children) == [f"{KEEP}m.0", f"{KEEP}m.1"]
    assert sorted(client.labels(children[f"{KEEP}m.1"])) == [f"{KEEP}config", f"{KEEP}l.0"]
    assert client.labels(children[f"{KEEP}m.0"]) == {}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def remote(name: str) -> registry_pb2.OCIRegistry:
    return registry_pb2.OCIRegistry(reference=name, resolver=registry_pb2.RegistryResolver(default_scheme="http"))


@needs_registry
@pytest.mark.parametrize("make", [tools.wasm, tools.cosign])
def test_artifacts_are_pushed_and_pulled(client: Client, address: str, make: object) -> None:
    """Under their names, with every part of them, and nothing of them is unpacked."""
    case = make()  # type: ignore[operator] # one of the functions above
    client.load(case.data, AMD64)
    before, unpacked = client.images(), client.snapshots()
    name = case.names[-1]
    there = f"{address}/artifact/{make.__name__}:1"  # type: ignore[attr-defined] # as above

    client.transfer(imagestore_pb2.ImageStore(name=name), remote(there))
    store = imagestore_pb2.ImageStore(
        name=there, platforms=[AMD64], unpacks=[imagestore_pb2.UnpackConfiguration(platform=AMD64)]
    )
    client.transfer(remote(there), store)

    assert client.images()[there] == before[name]
    assert client.snapshots() == unpacked


@needs_registry
def test_progress_names_what_a_blob_belongs_to(client: Client, address: str) -> None:
    """Config and layers are below their manifest, the manifest below the image: in a push the one that is here."""
    layer = tools.plain_tar("told")
    client.load(archive("told", layer), AMD64)
    there, local = f"{address}/told/app:1", "example.org/base:told"
    manifest = f"manifest-{client.images()[local]}"
    expected = {manifest: [local], f"layer-{digest_of(layer)}": [manifest]}

    pushed = client.transfer(imagestore_pb2.ImageStore(name=local), remote(there))
    found = {step.name: list(step.parents) for step in pushed if step.parents}
    config = next(name for name in found if name.startswith("config-"))
    assert found == {**expected, config: [manifest]}
    assert {step.name for step in pushed if step.event == "pushing content"} == {local}

    pulled = client.transfer(remote(there), imagestore_pb2.ImageStore(name=there, platforms=[AMD64]))
    assert {step.name: list(step.parents) for step in pulled if step.parents} == {
        manifest: [there],
        f"layer-{digest_of(layer)}": [manifest],
        config: [manifest],
    }


def test_one_archive_has_one_digest(daemon: ScratchDaemon, client: Client, tmp_path: Path) -> None:
    """The manifest that `ctr` makes of what docker saved, which has containerd's own code for it, is ours."""
    for make in (tools.ko, tools.kaniko, tools.rules_docker, tools.rules_oci, tools.jib_docker):
        case = make()
        path = tmp_path / f"{make.__name__}.tar"
        path.write_bytes(case.data)
        namespace = f"ctr-{make.__name__.replace('_', '-')}"
        done = daemon.ctr("-n", namespace, "images", "import", str(path))
        assert done.returncode == 0, done.stderr
        client.load(case.data, AMD64)
        listed = daemon.ctr("-n", namespace, "images", "ls").stdout.splitlines()[1:]
        theirs = {line.split()[0]: line.split()[2] for line in listed}
        assert theirs == {name: client.images()[name] for name in case.names}, make.__name__
