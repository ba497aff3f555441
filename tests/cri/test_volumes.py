"""Volumes of images: which there are, what is in them, and that no link leads out of the image."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from windlass.contracts.mounts import Mount
from windlass.contracts.values import Platform
from windlass.errors import InvalidArgument, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.images.images import Images
from windlass_cri.spec import imagevolumes
from windlass_cri.spec.imagevolumes import below
from windlass_cri.spec.volumes import copy, declared
from windlass_images.manifests import ImageConfig, parse_config
from windlass_local.inside import LocalNamespace


def test_volumes_of_an_image_but_those_at_a_clients_places(tmp_path: Path) -> None:
    image = ImageConfig(Platform("linux", "amd64"), (), volumes=("/data", "relative/x", "/data/", "/taken/", "/"))
    found = declared(image, [cri.Mount(container_path="/taken", host_path="/x")], tmp_path)
    assert [each.container_path for each in found] == ["/data", "/relative/x"]
    assert len({each.host_path for each in found}) == 2
    assert all(each.host_path.startswith(f"{tmp_path}/volumes/") for each in found)


def test_volumes_are_read_from_an_images_config() -> None:
    start = b'{"os": "linux", "architecture": "amd64", "config": {"Volumes": '
    assert parse_config(start + b'{"/a": {}, "/b": {}}}}', "x").volumes == ("/a", "/b")
    assert parse_config(start + b"null}}", "x").volumes == ()
    for bad in (b'["/a"]}}', b'{"": {}}}}'):
        with pytest.raises(InvalidArgument, match="Volumes"):
            parse_config(start + bad, "x")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners of files")
def test_a_volume_has_what_the_image_has(tmp_path: Path) -> None:
    source, destination = tmp_path / "root/data", tmp_path / "volume"
    source.mkdir(parents=True)
    destination.mkdir()
    (source / "seed").write_text("text")
    os.chown(source / "seed", 12, 34)
    source.chmod(0o1777)
    copy(str(tmp_path / "root"), {"/data": destination, "/absent": tmp_path / "untouched"})
    assert (destination / "seed").read_text() == "text"
    assert ((destination / "seed").stat().st_uid, (destination / "seed").stat().st_gid) == (12, 34)
    assert destination.stat().st_mode & 0o7777 == 0o1777
    assert not (tmp_path / "untouched").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners of files")
def test_no_link_of_an_image_leads_to_the_host(tmp_path: Path) -> None:
    root, secret, destination = tmp_path / "root", tmp_path / "secret", tmp_path / "volume"
    for each in (root, secret, destination):
        each.mkdir()
    (secret / "key").write_text("host")
    (root / "absolute").symlink_to(secret)
    (root / "relative").symlink_to("../secret")
    copy(str(root), {"/absolute": destination, "/relative": destination, "/../secret": destination})
    assert list(destination.iterdir()) == []


def test_a_volume_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unknown, match="volume /file of the image"):
        copy(str(tmp_path), {"/file": tmp_path})


def test_sub_paths_of_image_volumes(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "inner").symlink_to("a/b")
    (tmp_path / "outer").symlink_to("../..")
    (tmp_path / "absolute").symlink_to("/etc")
    assert below(tmp_path, "") == str(tmp_path)
    assert below(tmp_path, "a/b") == below(tmp_path, "inner") == f"{tmp_path}/a/b"
    for path in ("../x", "outer", "absolute"):
        with pytest.raises(Unknown, match="path escapes from parent"):
            below(tmp_path, path)
    with pytest.raises(Unknown, match="only directory subpath is supported"):
        below(tmp_path, "file")
    with pytest.raises(Unknown, match=re.escape("no such file or directory")):
        below(tmp_path, "absent")


class _Namespace:
    """A namespace with one image, whose mounts cannot be made."""

    def __init__(self) -> None:
        self.snapshots = self
        self.calls: list[str] = []

    def under(self, lease: str) -> _Namespace:
        return self

    async def view(self, snapshotter: str, key: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        self.calls.append("view")
        return []

    async def activate(self, name: str, mounts: list[Mount]) -> list[Mount]:
        self.calls.append("activate")
        raise Unknown("no loop device is free")

    async def deactivate(self, name: str) -> None:
        self.calls.append("deactivate")

    async def remove(self, snapshotter: str, key: str) -> None:
        self.calls.append("remove")


class _Images:
    async def resolve(self, name: str) -> str:
        return name

    def name_of(self, id: str) -> str:
        return id


async def test_an_image_volume_that_is_half_made_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object) -> SimpleNamespace:
        return SimpleNamespace(target=SimpleNamespace(digest="sha256:aa"), image=SimpleNamespace(chain_id=""))

    monkeypatch.setattr(imagevolumes, "resolve", resolve)
    namespace = _Namespace()
    volumes = imagevolumes.ImageVolumes(cast("LocalNamespace", namespace), cast("Images", _Images()), tmp_path)
    mount = cri.Mount(container_path="/x", readonly=True, image=cri.ImageSpec(image="a"))
    with pytest.raises(Unknown, match="no loop device is free"):
        await volumes.prepare("pod", cri.ContainerConfig(mounts=[mount]), "overlayfs", {})
    await volumes.release("pod", "overlayfs")
    assert namespace.calls == ["view", "activate", "deactivate", "remove"]
    assert list((tmp_path / "image-volumes").iterdir()) == []
