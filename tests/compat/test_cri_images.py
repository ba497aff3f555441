"""CRI's images: pulled from Debian's docker-registry in the daemon's network, named, shown, removed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from compat.cri_daemon import IMAGE, CriDaemon, require_cri_tools, running_cri
from compat.images import Archive, busybox_layer
from compat.registries import HTPASSWD, SECRET, USER, hosts, needs_registry, needs_skopeo
from compat.scratch_daemon import wait_until

from windlass_api.containerd.services.images.v1 import images_pb2, images_pb2_grpc
from windlass_api.runtime.v1 import api_pb2 as cri

pytestmark = [needs_registry, needs_skopeo]
PORT = 5000
"""In a network of the daemon's own."""
MIRRORED = "images.example"
MANAGED = {"io.cri-containerd.image": "managed"}


class Registry:
    """A docker-registry that wants a password, and is the mirror of `MIRRORED`."""

    def __init__(self, daemon: CriDaemon, directory: Path) -> None:
        self.daemon = daemon
        self.directory = directory
        self.log = directory / "log"
        htpasswd = directory / "htpasswd"
        htpasswd.write_text(HTPASSWD)
        config = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
            "http": {"addr": f"127.0.0.1:{PORT}"},
            "auth": {"htpasswd": {"realm": "test", "path": str(htpasswd)}},
        }
        path = directory / "config.yml"
        path.write_text(json.dumps(config))  # JSON is YAML
        command = ["nsenter", f"--net={daemon.host}", "docker-registry", "serve", str(path)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def push(self, repository: str, *tags: str, mark: str = "") -> Archive:
        """Push an image under tags; images with different marks differ."""
        layers = [busybox_layer(), *([_marked(mark)] if mark else [])]
        archive = Archive(self.directory / "image.tar", f"{MIRRORED}/{repository}:x", layers)

        def copy(tag: str) -> bool:
            target = f"docker://127.0.0.1:{PORT}/{repository}:{tag}"
            options = ["--dest-tls-verify=false", f"--dest-creds={USER}:{SECRET}", "--preserve-digests"]
            command = ["nsenter", f"--net={self.daemon.host}", "skopeo", "copy", "-q", *options]
            done = subprocess.run([*command, f"oci-archive:{archive.path}", target], capture_output=True, timeout=60)
            return done.returncode == 0

        for tag in tags:
            assert wait_until(lambda tag=tag: copy(tag)), self.log.read_text()
        return archive

    def asked(self, digest: str) -> int:
        """Return how often a blob was sent."""
        lines = self.log.read_text().splitlines()
        return sum("GET /v2/" in line and f"/blobs/{digest}" in line and '" 200 ' in line for line in lines)


def _marked(text: str) -> bytes:
    from compat.images import layer

    return layer({"mark": text.encode()})


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriDaemon]:
    """A daemon whose mirror rules are in a directory of CRI's configuration."""
    require_cri_tools()
    directory = tmp_path_factory.mktemp("cri")
    certs = directory / "certs"
    hosts(certs, MIRRORED, f'[host."http://127.0.0.1:{PORT}"]\ncapabilities = ["pull", "resolve"]\n')
    more = (
        '[plugins."io.containerd.cri.v1.images".registry]\n'
        f'config_path = "{certs}:/nowhere"\n'
        '[plugins."io.containerd.cri.v1.images".pinned_images]\n'
        f'sandbox = "{MIRRORED}/pinned:1"\n'
    )
    with running_cri(directory, more=more) as found:
        yield found


@pytest.fixture(scope="module")
def registry(daemon: CriDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    found = Registry(daemon, tmp_path_factory.mktemp("registry"))
    try:
        yield found
    finally:
        found.process.terminate()
        found.process.wait(10)


AUTH = cri.AuthConfig(username=USER, password=SECRET)


def pull(daemon: CriDaemon, name: str, auth: cri.AuthConfig = AUTH) -> str:
    request = cri.PullImageRequest(image=cri.ImageSpec(image=name), auth=auth)
    return daemon.images.PullImage(request, timeout=60).image_ref


def status(daemon: CriDaemon, name: str, verbose: bool = False) -> cri.ImageStatusResponse:
    request = cri.ImageStatusRequest(image=cri.ImageSpec(image=name), verbose=verbose)
    return daemon.images.ImageStatus(request, timeout=20)


def remove(daemon: CriDaemon, name: str) -> None:
    daemon.images.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image=name)), timeout=60)


def stored(daemon: CriDaemon) -> dict[str, dict[str, str]]:
    """Return the labels of what the daemon's image store has, by name."""
    stub = images_pb2_grpc.ImagesStub(daemon.connection)
    rows = stub.List(images_pb2.ListImagesRequest(), metadata=(("containerd-namespace", "k8s.io"),), timeout=20).images
    return {row.name: dict(row.labels) for row in rows}


def test_a_pulled_image_has_three_names_and_is_managed(daemon: CriDaemon, registry: Registry) -> None:
    archive = registry.push("team/app", "1", mark="app")
    name = f"{MIRRORED}/team/app:1"
    id = pull(daemon, name)
    assert id == archive.config
    names = stored(daemon)
    for each in (name, f"{MIRRORED}/team/app@{archive.digest}", id):
        assert names[each] == MANAGED
    found = status(daemon, name).image
    assert found.repo_tags == [name] and found.repo_digests == [f"{MIRRORED}/team/app@{archive.digest}"]
    sizes = [len(data) for data in archive.blobs.values()]
    assert found.size == sum(sizes) and not found.pinned
    remove(daemon, name)


def test_a_pull_by_digest_has_no_tag(daemon: CriDaemon, registry: Registry) -> None:
    archive = registry.push("team/digest", "1", mark="digest")
    name = f"{MIRRORED}/team/digest@{archive.digest}"
    pull(daemon, name)
    found = status(daemon, name).image
    assert not found.repo_tags and found.repo_digests == [name]
    remove(daemon, name)


def test_the_image_of_the_configuration_is_pinned(daemon: CriDaemon, registry: Registry) -> None:
    registry.push("pinned", "1", mark="pinned")
    name = f"{MIRRORED}/pinned:1"
    pull(daemon, name)
    assert status(daemon, name).image.pinned
    assert stored(daemon)[name] == {**MANAGED, "io.cri-containerd.pinned": "pinned"}
    remove(daemon, name)  # a client may all the same
    assert not status(daemon, name).HasField("image")


@pytest.mark.parametrize(
    "auth",
    [
        cri.AuthConfig(),
        cri.AuthConfig(username=USER, password="wrong"),
        cri.AuthConfig(username=USER, password=SECRET, server_address="https://other.example"),
    ],
    ids=["none", "wrong", "for another registry"],
)
def test_without_its_credentials_a_registry_gives_nothing(
    daemon: CriDaemon, registry: Registry, auth: cri.AuthConfig
) -> None:
    registry.push("team/secret", "1", mark="secret")
    with pytest.raises(grpc.RpcError) as failed:
        pull(daemon, f"{MIRRORED}/team/secret:1", auth)
    assert f"{MIRRORED}/team/secret:1" in str(failed.value.details()) and SECRET not in str(failed.value.details())
    assert not status(daemon, f"{MIRRORED}/team/secret:1").HasField("image")


def test_credentials_may_be_in_base64(daemon: CriDaemon, registry: Registry) -> None:
    registry.push("team/base64", "1", mark="base64")
    name = f"{MIRRORED}/team/base64:1"
    pull(daemon, name, cri.AuthConfig(auth="bWU6czNjcmV0"))
    remove(daemon, name)


def test_several_pulls_of_one_image_fetch_it_once(daemon: CriDaemon, registry: Registry) -> None:
    archive = registry.push("team/many", "1", mark="many")
    name = f"{MIRRORED}/team/many:1"
    before = registry.asked(archive.config)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: pull(daemon, name), range(8))) == {archive.config}
    assert registry.asked(archive.config) == before + 1
    remove(daemon, name)


def test_errors_of_pulls(daemon: CriDaemon, registry: Registry) -> None:
    registry.push("team/app", "1", mark="app")
    with pytest.raises(grpc.RpcError) as failed:
        pull(daemon, f"{MIRRORED}/team/nope:1")
    assert failed.value.code() == grpc.StatusCode.NOT_FOUND
    assert f'failed to pull and unpack image "{MIRRORED}/team/nope:1"' in str(failed.value.details())
    with pytest.raises(grpc.RpcError) as failed:
        pull(daemon, "UPPER:1")
    assert failed.value.code() == grpc.StatusCode.UNKNOWN
    assert 'failed to parse image reference "UPPER:1": invalid reference format' in str(failed.value.details())


def test_an_image_that_another_client_imported_is_managed(daemon: CriDaemon) -> None:
    id = status(daemon, IMAGE).image.id
    assert wait_until(lambda: stored(daemon).get(IMAGE) == MANAGED and stored(daemon).get(id) == MANAGED)


def test_a_name_that_another_client_takes_at_once_does_not_come_back(daemon: CriDaemon) -> None:
    stub, metadata = images_pb2_grpc.ImagesStub(daemon.connection), (("containerd-namespace", "k8s.io"),)
    target = stub.Get(images_pb2.GetImageRequest(name=IMAGE), metadata=metadata).image.target
    brief = [f"docker.io/library/brief:{number}" for number in range(20)]
    for name in brief:
        image = images_pb2.Image(name=name, target=target)
        stub.Create(images_pb2.CreateImageRequest(image=image), metadata=metadata)
        stub.Delete(images_pb2.DeleteImageRequest(name=name), metadata=metadata)
    last = images_pb2.Image(name="docker.io/library/last:1", target=target)
    stub.Create(images_pb2.CreateImageRequest(image=last), metadata=metadata)
    # Events come in order: what is known of the last name is known of the earlier ones.
    assert wait_until(lambda: last.name in status(daemon, IMAGE).image.repo_tags)
    known = {each.name for each in stub.List(images_pb2.ListImagesRequest(), metadata=metadata).images}
    stub.Delete(images_pb2.DeleteImageRequest(name=last.name), metadata=metadata)
    assert known.isdisjoint(brief)
    assert wait_until(lambda: list(status(daemon, IMAGE).image.repo_tags) == [IMAGE])


def test_a_name_that_another_client_gives_or_takes_is_seen(daemon: CriDaemon) -> None:
    stub, metadata = images_pb2_grpc.ImagesStub(daemon.connection), (("containerd-namespace", "k8s.io"),)
    image = stub.Get(images_pb2.GetImageRequest(name=IMAGE), metadata=metadata).image
    other = "docker.io/library/aa:9"
    stub.Create(
        images_pb2.CreateImageRequest(image=images_pb2.Image(name=other, target=image.target)), metadata=metadata
    )
    assert wait_until(lambda: list(status(daemon, IMAGE).image.repo_tags) == [other, IMAGE])
    assert status(daemon, "aa:9").image.id == status(daemon, IMAGE).image.id
    stub.Delete(images_pb2.DeleteImageRequest(name=other), metadata=metadata)
    assert wait_until(lambda: list(status(daemon, IMAGE).image.repo_tags) == [IMAGE])


def test_removing_one_name_removes_all(daemon: CriDaemon, registry: Registry) -> None:
    registry.push("team/tags", "1", "2", mark="tags")
    registry.push("other/tags", "1", mark="tags")
    names = [f"{MIRRORED}/team/tags:1", f"{MIRRORED}/team/tags:2", f"{MIRRORED}/other/tags:1"]
    ids = {pull(daemon, name) for name in names}
    assert len(ids) == 1
    (id,) = ids
    assert list(status(daemon, id).image.repo_tags) == sorted(names)
    remove(daemon, names[1])
    assert not any(status(daemon, name).HasField("image") for name in [*names, id])
    assert not any("/tags" in name or name == id for name in stored(daemon))
    remove(daemon, names[1])  # once more is no error


def test_an_image_is_found_by_every_kind_of_reference(daemon: CriDaemon, registry: Registry) -> None:
    archive = registry.push("team/kinds", "1", mark="kinds")
    name = f"{MIRRORED}/team/kinds:1"
    id = pull(daemon, name)
    wanted = status(daemon, name).image
    digest = f"{MIRRORED}/team/kinds@{archive.digest}"
    for reference in (id, id.removeprefix("sha256:"), id[:19], id[7:19], digest):
        assert status(daemon, reference).image == wanted, reference
    remove(daemon, id)


@pytest.mark.parametrize("reference", ["UPPER", "sha256:abcd", "docker.io/library/nope:1", "a b", "@", "x" * 5000])
def test_what_is_not_here_has_an_empty_status(daemon: CriDaemon, reference: str) -> None:
    assert not status(daemon, reference).HasField("image")
    remove(daemon, reference)


def test_no_reference_is_an_error(daemon: CriDaemon) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        status(daemon, "")
    assert failed.value.code() == grpc.StatusCode.UNKNOWN


def test_a_verbose_status_has_the_config(daemon: CriDaemon) -> None:
    info = json.loads(status(daemon, IMAGE, verbose=True).info["info"])
    assert info["imageSpec"]["os"] == "linux" and info["chainID"].startswith("sha256:")
    assert not status(daemon, IMAGE).info


def test_the_streamed_list_is_the_list(daemon: CriDaemon) -> None:
    listed = daemon.images.ListImages(cri.ListImagesRequest(), timeout=20).images
    streamed = [
        each for part in daemon.images.StreamImages(cri.StreamImagesRequest(), timeout=20) for each in part.images
    ]
    assert listed and list(listed) == streamed


def test_the_filesystem_of_images(daemon: CriDaemon) -> None:
    info = daemon.images.ImageFsInfo(cri.ImageFsInfoRequest(), timeout=30)
    (filesystem,) = info.image_filesystems
    assert filesystem.fs_id.mountpoint.endswith("io.containerd.snapshotter.v1.overlayfs")
    assert filesystem.timestamp and Path(filesystem.fs_id.mountpoint).is_dir()


def test_images_are_known_after_a_crash(daemon: CriDaemon) -> None:
    before = status(daemon, IMAGE)
    daemon.restart()
    assert status(daemon, IMAGE) == before
