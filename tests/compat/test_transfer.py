"""Transfers by a real windlassd and a real docker-registry: whole, cut short, killed, many at once, and spoiled."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import zstandard
from compat.images import OCI, digest_of
from compat.registries import (
    HTPASSWD,
    SECRET,
    USER,
    FaultProxy,
    Spoil,
    needs_registry,
    needs_skopeo,
    proxied,
    registry,
)
from compat.scratch_daemon import METADATA, ScratchDaemon, needs_ctr, needs_root, wait_until

from windlass.contracts.values import Descriptor
from windlass_api.containerd.services.content.v1 import content_pb2, content_pb2_grpc
from windlass_api.containerd.services.images.v1 import images_pb2, images_pb2_grpc
from windlass_api.containerd.services.leases.v1 import leases_pb2, leases_pb2_grpc
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2, snapshots_pb2_grpc
from windlass_api.containerd.services.transfer.v1 import transfer_pb2, transfer_pb2_grpc
from windlass_api.containerd.types import platform_pb2
from windlass_api.containerd.types.transfer import imagestore_pb2, registry_pb2
from windlass_registry.client import Client

pytestmark = [needs_root, needs_ctr, needs_registry]

WINDLASS = [sys.executable, "-c", "import sys; from windlass_client.cli import main; sys.exit(main())"]
PLATFORM = {"os": "linux", "architecture": "amd64"}


def layer_of(seed: int, size: int = 400_000) -> tuple[bytes, str]:
    """Return a compressed layer with one file of its own, and its diff ID."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in ((f"file-{seed}", random.Random(seed).randbytes(size)), ("common", b"%d" % seed)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(out.getvalue(), 1, mtime=0), digest_of(out.getvalue())


class Built:
    """An image in memory."""

    def __init__(
        self,
        *layers: tuple[bytes, str],
        architecture: str = "amd64",
        kind: str = "layer.v1.tar+gzip",
        annotations: dict[str, str] | None = None,
    ) -> None:
        """``kind`` and ``annotations`` are those of its layers."""
        self.blobs: dict[str, bytes] = {}
        config = {
            **PLATFORM,
            "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
        }
        self.layers = [self._add(kind, data) for data, _ in layers]
        self.config = self._add("config.v1+json", json.dumps(config).encode())
        media_type = f"{OCI}.manifest.v1+json"
        described = [_json(layer) | ({"annotations": annotations} if annotations else {}) for layer in self.layers]
        document = {"schemaVersion": 2, "mediaType": media_type, "config": _json(self.config), "layers": described}
        self.manifest = json.dumps(document).encode()
        self.target = Descriptor(media_type, digest_of(self.manifest), len(self.manifest))

    def _add(self, kind: str, data: bytes) -> Descriptor:
        self.blobs[digest_of(data)] = data
        return Descriptor(f"{OCI}.{kind}", digest_of(data), len(data))

    def push(self, reference: str) -> None:
        client = Client([])
        pusher = client.repository(reference, scheme="http").pusher()
        for digest, data in self.blobs.items():
            pusher.push_blob(Descriptor("x", digest, len(data)), partial(bytes, data))
        pusher.push_manifest(self.target, self.manifest, reference.rpartition(":")[2])
        client.close()


def _json(desc: Descriptor) -> dict[str, object]:
    return {"mediaType": desc.media_type, "digest": desc.digest, "size": desc.size}


class Machine(ScratchDaemon):
    """A windlassd, and what it has."""

    def windlass(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        command = [*WINDLASS, "--address", str(self.address), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout)

    def pull(self, reference: str, timeout: float = 60) -> None:
        done = self.windlass("image", "pull", "--plain-http", reference, timeout=timeout)
        assert done.returncode == 0, done.stderr

    def kill(self) -> None:
        """End the daemon as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def refused(self, reference: str) -> str:
        """Return why a pull fails: its one line, after which nothing is there that was not before."""
        before = self.kept()
        done = self.windlass("image", "pull", "--plain-http", reference)
        assert done.returncode == 1, (done.stdout, done.stderr)
        line = done.stderr.rstrip("\n").rpartition("\n")[2]
        assert line.startswith("windlass: ") and line.isprintable()
        assert self.kept() == before
        return line

    def kept(self) -> dict[str, list[str]]:
        """Return everything that an image can leave."""
        with self.channel() as channel:
            blobs = content_pb2_grpc.ContentStub(channel).List(content_pb2.ListContentRequest(), metadata=METADATA)
            statuses = content_pb2_grpc.ContentStub(channel).ListStatuses(
                content_pb2.ListStatusesRequest(), metadata=METADATA
            )
            images = images_pb2_grpc.ImagesStub(channel).List(images_pb2.ListImagesRequest(), metadata=METADATA)
            leases = leases_pb2_grpc.LeasesStub(channel).List(leases_pb2.ListRequest(), metadata=METADATA)
            request = snapshots_pb2.ListSnapshotsRequest(snapshotter="overlayfs")
            snapshots = snapshots_pb2_grpc.SnapshotsStub(channel).List(request, metadata=METADATA)
            return {
                "blobs": sorted(info.digest for part in blobs for info in part.info),
                "ingests": sorted(status.ref for status in statuses.statuses),
                "images": sorted(image.name for image in images.images),
                "leases": sorted(lease.id for lease in leases.leases),
                "snapshots": sorted(info.name for part in snapshots for info in part.info),
            }

    def tree(self, reference: str, target: Path) -> dict[str, str]:
        """Return the files of an image's root with their digests."""
        target.mkdir()
        assert self.ctr("images", "mount", reference, str(target)).returncode == 0
        try:
            return {path.name: digest_of(path.read_bytes()) for path in target.rglob("*") if path.is_file()}
        finally:
            assert self.ctr("images", "unmount", "--rm", str(target)).returncode == 0


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("m"))
    try:
        machine.start()
        yield machine
    finally:
        machine.close()


@pytest.fixture
def machine(shared: Machine) -> Iterator[Machine]:
    """A daemon without images."""
    yield shared
    names = shared.kept()["images"]
    if names:
        shared.windlass("image", "rm", *names)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Machine]:
    """A daemon that may be killed."""
    machine = Machine(tmp_path)
    try:
        machine.start()
        yield machine
    finally:
        machine.close()


@contextmanager
def mirror(upstream: str, spoil: Spoil | None = None) -> Iterator[FaultProxy]:
    with proxied(upstream, spoil) as proxy:
        yield proxy


# What is moved


def test_an_image_is_pulled_unpacked_and_pushed_again(machine: Machine, address: str, tmp_path: Path) -> None:
    image = Built(*map(layer_of, range(5)))
    image.push(f"{address}/whole/app:1")

    machine.pull(f"{address}/whole/app:1")
    tree = machine.tree(f"{address}/whole/app:1", tmp_path / "root")
    assert len(tree) == 6 and tree["common"] == digest_of(b"4")
    labels = machine.ctr("content", "ls").stdout
    assert "containerd.io/distribution.source.127.0.0.1=whole/app" in labels, "as containerd writes it, without port"
    assert labels.count("containerd.io/uncompressed=") == 5

    assert machine.ctr("images", "tag", f"{address}/whole/app:1", f"{address}/again/app:2").returncode == 0
    pushed = machine.windlass("image", "push", "--plain-http", f"{address}/again/app:2")
    assert pushed.returncode == 0, pushed.stderr
    found = Client([]).repository(f"{address}/again/app:2", scheme="http").resolve()
    assert found == image.target
    assert machine.kept()["leases"] == machine.kept()["ingests"] == []


def zstd_of(layer: tuple[bytes, str]) -> tuple[bytes, str]:
    """Return a layer compressed with zstd."""
    return zstandard.compress(gzip.decompress(layer[0])), layer[1]


def chunked_of(layer: tuple[bytes, str]) -> tuple[bytes, str]:
    """Return a layer as podman writes zstd:chunked: several frames, and after them one that only such tools read."""
    data = gzip.decompress(layer[0])
    frames = [zstandard.compress(data[start : start + 50_000]) for start in range(0, len(data), 50_000)]
    contents = zstandard.compress(b'{"version":1,"entries":[]}')
    return b"".join(frames) + struct.pack("<II", 0x184D2A50, len(contents)) + contents, layer[1]


def test_layers_of_zstd_are_unpacked(machine: Machine, address: str, tmp_path: Path) -> None:
    """Also chunked ones, of which everything is fetched."""
    position = {"io.github.containers.zstd-chunked.manifest-position": "1:2:3:1"}
    plain = Built(zstd_of(layer_of(32)), zstd_of(layer_of(33)), kind="layer.v1.tar+zstd")
    chunked = Built(chunked_of(layer_of(34)), chunked_of(layer_of(35)), kind="layer.v1.tar+zstd", annotations=position)
    for name, image in (("plain", plain), ("chunked", chunked)):
        image.push(f"{address}/zstd/{name}:1")
        machine.pull(f"{address}/zstd/{name}:1")
        assert len(machine.tree(f"{address}/zstd/{name}:1", tmp_path / name)) == 3
    labels = machine.ctr("content", "ls").stdout
    assert labels.count("containerd.io/uncompressed=") == 4


def test_encrypted_layers_go_through_the_program_that_is_configured(own: Machine, address: str, tmp_path: Path) -> None:
    """Without one, or when it has no key, one line says so and nothing is kept."""
    flip, reference = bytes(reversed(range(256))), f"{address}/sealed/app:1"
    sealed = [(data.translate(flip), diff_id) for data, diff_id in map(layer_of, (36, 37))]
    image = Built(*sealed, kind="layer.v1.tar+gzip+encrypted")
    image.push(reference)
    assert "ctd-decoder" in own.refused(reference)

    program, kind = own.scratch / "decrypt", f"{OCI}.layer.v1.tar+gzip"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('there is no key for this')\n")
    program.chmod(0o755)
    config = own.scratch / "config.toml"
    config.write_text(
        f'version = 3\n[stream_processors."toy"]\naccepts = ["{kind}+encrypted"]\nreturns = "{kind}"\n'
        f'path = "{program}"\n'
    )
    own.stop()
    own._arguments += ["--config", config]
    own.start()
    line = own.refused(reference)
    assert any(layer.digest in line for layer in image.layers) and "there is no key for this" in line

    copy = "sys.stdout.buffer.write(sys.stdin.buffer.read().translate(bytes(reversed(range(256)))))"
    program.write_text(f"#!{sys.executable}\nimport sys\n{copy}\n")
    own.pull(reference)
    assert len(own.tree(reference, tmp_path / "tree")) == 3


@needs_skopeo
def test_skopeo_copies_what_was_pushed_and_what_skopeo_pushed_is_pulled(
    machine: Machine, address: str, tmp_path: Path
) -> None:
    image = Built(layer_of(20), layer_of(21))
    image.push(f"{address}/sk/app:1")
    skopeo = ["skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"]
    there = f"docker://{address}/sk/docker:1"
    for source, target, more in (
        (f"docker://{address}/sk/app:1", f"oci:{tmp_path}/layout:1", []),
        (f"oci:{tmp_path}/layout:1", there, ["--format", "v2s2"]),
    ):
        done = subprocess.run([*skopeo, *more, source, target], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    machine.pull(f"{address}/sk/docker:1")  # docker's schema 2
    assert len(machine.tree(f"{address}/sk/docker:1", tmp_path / "root")) == 3


def test_the_steps_of_a_transfer_are_told_in_containerd_s_words(machine: Machine, address: str) -> None:
    """What is done is a step without a name, which clients show as their last line; blobs are below their image."""
    name = f"{address}/told/app:1"
    Built(layer_of(39)).push(name)
    pulled = machine.windlass("image", "pull", "--plain-http", name)
    assert pulled.returncode == 0
    lines = [line.strip() for line in pulled.stderr.splitlines()]
    assert lines[0] == f"Resolving from OCI Registry ({name})"
    assert lines[-1] == f"Completed pull from OCI Registry ({name})"
    pushed = machine.windlass("image", "push", "--plain-http", name)
    assert pushed.stderr.splitlines()[-1].strip() == f"Completed push to OCI Registry ({name})"


def test_the_client_driven_way_of_ctr_1_6(machine: Machine, address: str) -> None:
    image = Built(layer_of(30), layer_of(31))
    image.push(f"{address}/ctr/app:1")

    pulled = machine.ctr("images", "pull", "--plain-http", f"{address}/ctr/app:1")
    assert pulled.returncode == 0, pulled.stderr
    assert machine.ctr("images", "tag", f"{address}/ctr/app:1", f"{address}/ctr2/app:1").returncode == 0
    pushed = machine.ctr("images", "push", "--plain-http", f"{address}/ctr2/app:1")
    assert pushed.returncode == 0, pushed.stderr
    machine.pull(f"{address}/ctr2/app:1")


def test_objects_are_fetched_and_pushed_by_ctr(machine: Machine, address: str) -> None:
    """`ctr content`, which does no more than that."""
    image = Built(layer_of(38))
    image.push(f"{address}/objects/app:1")

    fetched = machine.ctr("content", "fetch", "--plain-http", f"{address}/objects/app:1")
    assert fetched.returncode == 0, fetched.stderr
    assert {image.target.digest, *image.blobs} <= set(machine.ctr("content", "ls", "-q").stdout.split())
    layer = image.layers[0]
    there = [f"{address}/elsewhere/app:1", layer.digest, layer.media_type]
    pushed = machine.ctr("content", "push-object", "--plain-http", *there)
    assert pushed.returncode == 0, pushed.stderr
    repository = Client([]).repository(f"{address}/elsewhere/app:1", scheme="http")
    assert not repository.pusher().push_blob(layer, lambda: b"it is there already, so this is not sent")


def test_credentials_are_asked_for_over_a_stream(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}
    with registry(tmp_path / "basic", auth=auth) as address:
        archive = tmp_path / "image.tar"
        script = Path(__file__).parents[2] / "scripts" / "demo_image.py"
        name = f"{address}/secret/app:1"
        subprocess.run([sys.executable, str(script), str(archive), name], check=True)
        assert machine.windlass("image", "import", str(archive)).returncode == 0
        user = ["--plain-http", "--user", f"{USER}:{SECRET}"]

        assert "none were given" in machine.windlass("image", "push", "--plain-http", name).stderr
        pushed = machine.windlass("image", "push", *user, name)
        assert pushed.returncode == 0, pushed.stderr
        assert machine.windlass("image", "rm", name).returncode == 0
        pulled = machine.windlass("image", "pull", *user, name)
        assert pulled.returncode == 0, pulled.stderr
        assert SECRET not in machine.log.read_text() + pulled.stderr + pulled.stdout


def test_of_other_platforms_only_what_was_asked_for_comes(machine: Machine, address: str) -> None:
    """Nothing, or with all metadata their manifests and configs, and never their layers."""
    mine, other = Built(layer_of(35)), Built(layer_of(36), architecture="s390x")
    manifests: list[dict[str, object]] = []
    for image, architecture in ((mine, "amd64"), (other, "s390x")):
        image.push(f"{address}/multi/app:{architecture}")
        platform = {"os": "linux", "architecture": architecture}
        manifests.append({**_json(image.target), "platform": platform})
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": manifests}
    data = json.dumps(index).encode()
    target = Descriptor(f"{OCI}.index.v1+json", digest_of(data), len(data))
    Client([]).repository(f"{address}/multi/app:1", scheme="http").pusher().push_manifest(target, data, "1")

    machine.pull(f"{address}/multi/app:1")
    blobs = set(machine.kept()["blobs"])
    assert mine.layers[0].digest in blobs
    assert not {other.target.digest, other.config.digest, other.layers[0].digest} & blobs
    done = machine.windlass("image", "pull", "--plain-http", "--all-metadata", f"{address}/multi/app:1")
    assert done.returncode == 0, done.stderr
    blobs = set(machine.kept()["blobs"])
    assert {other.target.digest, other.config.digest} <= blobs and other.layers[0].digest not in blobs

    refused = machine.windlass("image", "push", "--plain-http", f"{address}/multi/app:1")
    assert refused.returncode == 1 and "is missing" in refused.stderr
    assert machine.ctr("images", "tag", f"{address}/multi/app:1", f"{address}/one/app:1").returncode == 0
    pushed = machine.windlass("image", "push", "--plain-http", "--platform", "linux/amd64", f"{address}/one/app:1")
    assert pushed.returncode == 0, pushed.stderr
    assert Client([]).repository(f"{address}/one/app:1", scheme="http").resolve() == mine.target


# What is cut short


def test_a_pull_that_is_cancelled_at_any_point_leaves_nothing(machine: Machine, address: str) -> None:
    image = Built(*map(layer_of, range(40, 46)))
    image.push(f"{address}/cut/app:1")
    before = machine.kept()
    with mirror(address) as proxy:
        proxy.delay = 0.15
        reference = f"{proxy.address}/cut/app:1"
        for wait in (0.01, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8):
            with machine.channel() as channel:
                call = transfer_pb2_grpc.TransferStub(channel).Transfer.future(
                    pulling(reference), metadata=METADATA, timeout=60
                )
                time.sleep(wait)
                if not call.cancel():  # it was quicker
                    machine.windlass("image", "rm", reference)
            assert wait_until(lambda: machine.kept() == before, 15), machine.kept()
    machine.pull(f"{address}/cut/app:1")


def pulling(reference: str) -> transfer_pb2.TransferRequest:
    """Return what ctr 2.x asks for, without its streams."""
    request = transfer_pb2.TransferRequest()
    source = registry_pb2.OCIRegistry(reference=reference)
    source.resolver.default_scheme = "http"
    platform = platform_pb2.Platform(os="linux", architecture="amd64")
    destination = imagestore_pb2.ImageStore(name=reference, platforms=[platform])
    destination.unpacks.add(platform=platform, snapshotter="overlayfs")
    for end, message in ((request.source, source), (request.destination, destination)):
        end.type_url, end.value = message.DESCRIPTOR.full_name, message.SerializeToString()
    return request


def test_the_next_pull_goes_on_where_a_killed_daemon_was(own: Machine, address: str, tmp_path: Path) -> None:
    image = Built(layer_of(50, 8 << 20), layer_of(51))
    image.push(f"{address}/killed/app:1")
    large = image.layers[0]
    half, killed = threading.Event(), threading.Event()

    def spoil(path: str, count: int, body: bytes) -> bytes | None:
        if large.digest in path and count == 1:
            threading.Timer(0.5, half.set).start()
            return body[: large.size // 2]
        if large.digest in path and not killed.is_set():
            time.sleep(3)  # by then the daemon is not there any more
        return None

    with mirror(address, spoil) as proxy:
        pull = threading.Thread(
            target=own.windlass, args=("image", "pull", "--plain-http", f"{proxy.address}/killed/app:1")
        )
        pull.start()
        assert half.wait(20)
        own.kill()
        killed.set()
        own.start()
        pull.join()
        asked = proxy.counts.copy()
        ingest = next(status for status in own.kept()["ingests"] if large.digest in status)
        assert ingest

        own.pull(f"{proxy.address}/killed/app:1")
        assert len(own.tree(f"{proxy.address}/killed/app:1", tmp_path / "tree")) == 3
        path = f"GET /v2/killed/app/blobs/{large.digest}"
        assert proxy.counts[path] == asked[path] + 1
    assert wait_until(lambda: not own.kept()["ingests"])


# Many at once


def test_twenty_pulls_of_one_image_are_one_download(machine: Machine, address: str) -> None:
    image = Built(*map(layer_of, range(60, 64)))
    image.push(f"{address}/twenty/app:1")
    with mirror(address) as proxy:
        with machine.channel() as channel, ThreadPoolExecutor(20) as pool:
            stub = transfer_pb2_grpc.TransferStub(channel)
            request = pulling(f"{proxy.address}/twenty/app:1")
            calls = [pool.submit(stub.Transfer, request, metadata=METADATA, timeout=60) for _ in range(20)]
            for call in calls:
                call.result()
        assert proxy.blobs() == len(image.blobs)
    kept = machine.kept()
    assert len(kept["snapshots"]) >= 4
    assert kept["leases"] == kept["ingests"] == []


def test_a_container_starts_beside_twenty_pulls(machine: Machine, address: str, tmp_path: Path) -> None:
    """It is not measured here that it is quick, only that it need not wait for them."""
    archive = tmp_path / "image.tar"
    script = Path(__file__).parents[2] / "scripts" / "demo_image.py"
    subprocess.run([sys.executable, str(script), str(archive), "example.org/demo:1"], check=True)
    assert machine.windlass("image", "import", str(archive)).returncode == 0
    images = [Built(layer_of(100 + number)) for number in range(20)]
    for number, image in enumerate(images):
        image.push(f"{address}/many/app{number}:1")
    with mirror(address) as proxy:
        proxy.hold = threading.Event()
        with machine.channel() as channel:
            stub = transfer_pb2_grpc.TransferStub(channel)
            calls = [
                stub.Transfer.future(pulling(f"{proxy.address}/many/app{number}:1"), metadata=METADATA, timeout=60)
                for number in range(20)
            ]
            try:
                done = machine.ctr("run", "--rm", "example.org/demo:1", "beside", "/bin/true")
                assert done.returncode == 0, done.stderr
            finally:
                proxy.hold.set()
            for call in calls:
                call.result()
    assert sum("many/app" in name for name in machine.kept()["images"]) == 20


# What is spoiled


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], ["has digest", "fetch blob of"]),
        (lambda data: b"", ["fetch blob of"]),
    ],
    ids=["wrong bytes", "always cut"],
)
def test_a_layer_that_never_comes_right(
    machine: Machine, address: str, spoil: Callable[[bytes], bytes], words: list[str]
) -> None:
    image = Built(layer_of(70), layer_of(71))
    image.push(f"{address}/bad/app:1")
    bad = image.layers[1].digest
    with mirror(address, lambda path, count, body: spoil(body) if bad in path else None) as proxy:
        line = machine.refused(f"{proxy.address}/bad/app:1")
    assert f"{proxy.address}/bad/app" in line and bad in line
    assert any(word in line for word in words), line


def test_wrong_bytes_once_are_fetched_again(machine: Machine, address: str) -> None:
    image = Built(layer_of(72))
    image.push(f"{address}/once/app:1")
    bad = image.layers[0].digest

    def spoil(path: str, count: int, body: bytes) -> bytes | None:
        return bytes(len(body)) if bad in path and count == 1 else None

    with mirror(address) as good, mirror(address, spoil) as wrong:
        certs = machine.scratch / "certs.d"
        directory = certs / good.address
        directory.mkdir(parents=True)
        (directory / "hosts.toml").write_text(f'server = "http://{good.address}"\n[host."http://{wrong.address}"]\n')
        done = machine.windlass("image", "pull", "--hosts-dir", str(certs), f"{good.address}/once/app:1")
        assert done.returncode == 0, done.stderr
        assert good.blobs() == 1


def spoiled(address: str, name: str, data: bytes, diff_id: str) -> None:
    """Push an image whose one layer is what a hostile registry might have."""
    Built((data, diff_id)).push(f"{address}/{name}:1")


def test_layers_that_are_no_layers(machine: Machine, address: str) -> None:
    good, diff_id = layer_of(80)
    cases = {
        "truncated": (good[: len(good) // 2], diff_id, "cannot be unpacked"),
        "no-gzip": (b"<html>" * 100, diff_id, "cannot be unpacked"),
        "other": (good, "sha256:" + "0" * 64, "unpacks to"),
    }
    for name, (data, claimed, words) in cases.items():
        spoiled(address, f"layers/{name}", data, claimed)
        line = machine.refused(f"{address}/layers/{name}:1")
        assert words in line and f"{address}/layers/{name}" in line and digest_of(data) in line, line


def test_a_gzip_bomb_stops_at_the_size_of_its_file(machine: Machine, address: str) -> None:
    """What a header says is what a file gets: more is no entry of the archive, and the diff ID does not fit."""
    header = tarfile.TarInfo("zeros")
    header.size = 1000
    bomb = gzip.compress(header.tobuf() + bytes(64 << 20))
    spoiled(address, "bomb/app", bomb, "sha256:" + "0" * 64)

    line = machine.refused(f"{address}/bomb/app:1")
    assert digest_of(bomb) in line


def test_documents_that_are_hostile(machine: Machine, address: str, tmp_path: Path) -> None:
    client = Client([])
    kinds = {"index": f"{OCI}.index.v1+json", "manifest": f"{OCI}.manifest.v1+json"}

    def put(name: str, kind: str, document: object) -> None:
        data = json.dumps(document).encode()
        target = Descriptor(kinds[kind], digest_of(data), len(data))
        # no registry would take it: the proxy below brings it in place of what the registry has
        bodies[f"/v2/{name}/manifests/"] = (target, data)

    bodies: dict[str, tuple[Descriptor, bytes]] = {}
    layers = [
        {"mediaType": f"{OCI}.layer.v1.tar", "digest": f"sha256:{number:064x}", "size": 1} for number in range(10_000)
    ]
    image = Built(layer_of(90))
    put("h/many", "manifest", {"schemaVersion": 2, "config": _json(image.config), "layers": layers})
    put("h/both", "manifest", {"schemaVersion": 2, "config": _json(image.config), "layers": [], "manifests": []})
    put("h/none", "manifest", {"schemaVersion": 1})
    put("h/list", "index", {"schemaVersion": 2, "manifests": [{"mediaType": "x", "digest": "y", "size": 1}]})
    client.close()
    from registry.fake import Fake, Handler, running

    with running() as fake:
        for place, (target, data) in bodies.items():
            fake.manifests[target.digest] = (target.media_type, data)

            def bring(handler: Handler, place: str = place, target: Descriptor = target, data: bytes = data) -> bool:
                headers = {"Content-Type": target.media_type, "Docker-Content-Digest": target.digest}
                return place in handler.path and handler.answered(200, data, headers)

            fake.misbehaviours.append(bring)
        fake.blobs |= image.blobs
        for name, words in (
            ("h/many", "10000 layers"),
            ("h/both", "both a manifest and an index"),
            ("h/none", "schemaVersion"),
            ("h/list", "no valid digest"),
        ):
            line = machine.refused(f"{fake.authority}/{name}:1")
            assert words in line and f"{fake.authority}/{name}" in line, line
        assert isinstance(fake, Fake)


def test_an_index_that_names_itself_over_and_over_ends(machine: Machine) -> None:
    """A digest cannot name itself, but ten levels of ten thousand names each could take for ever."""
    from registry.fake import running

    kind = f"{OCI}.index.v1+json"
    with running() as fake:
        entry: dict[str, object] = {"mediaType": kind, "digest": "sha256:" + "0" * 64, "size": 100}
        for level in range(7):
            data = json.dumps(
                {"schemaVersion": 2, "manifests": [entry] * 100, "annotations": {"n": str(level)}}
            ).encode()
            fake.add_manifest(data, str(level), kind)
            entry = {"mediaType": kind, "digest": digest_of(data), "size": len(data)}
        line = machine.refused(f"{fake.authority}/deep/app:6")
        assert "nested indexes" in line
        assert len(fake.requests) < 50


def test_a_verifier_is_asked_before_anything_is_fetched(own: Machine, address: str) -> None:
    image = Built(layer_of(95))
    image.push(f"{address}/judged/app:1")
    policy = own.scratch / "policy.toml"
    policy.write_text(f'[[rules]]\nprefix = "{address}/judged"\nrequire = "deny"\n')
    own.stop()
    config = own.scratch / "config.toml"
    config.write_text(f'version = 3\n[plugins."io.containerd.image-verifier.v1.sign-policy"]\npath = "{policy}"\n')
    own._arguments += ["--config", config]
    own.start()

    line = own.refused(f"{address}/judged/app:1")
    assert f"denied by {policy}:1" in line
    policy.write_text("")
    own.pull(f"{address}/judged/app:1")
