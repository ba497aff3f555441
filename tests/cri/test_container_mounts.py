"""Mounts and devices of a container: their order, what replaces what, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cri.pod_files import made_files

from windlass.errors import Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.pods.files import PodFiles
from windlass_cri.record import Pod, PodData
from windlass_cri.spec import devices, mounts
from windlass_cri.spec.mounts import MountTable, bind, set_mounts
from windlass_oci import devices as oci_devices
from windlass_oci.defaults import default_spec
from windlass_oci.runtime_spec import Spec

TABLE = MountTable({"/": (), "/shared": ("shared:1",), "/slave": ("master:1",)})
POD = Pod("podid", cri.PodSandboxConfig(), PodData("p"), True)


def mounted(tmp_path: Path, *wanted: cri.Mount, volumes: tuple[cri.Mount, ...] = ()) -> Spec:
    files = made_files(tmp_path / "files")
    spec = default_spec("k8s.io", "id")
    set_mounts(spec, POD, files, cri.ContainerConfig(mounts=wanted), volumes)
    return spec


def places(spec: Spec) -> list[str]:
    return [each["destination"] for each in spec["mounts"]]


def test_default_mounts_come_first_then_others_by_their_depth(tmp_path: Path) -> None:
    host = str(tmp_path)
    spec = mounted(
        tmp_path,
        cri.Mount(container_path="/a/b/c", host_path=host),
        cri.Mount(container_path="/a/", host_path=host),
        cri.Mount(container_path="/a", host_path=host, readonly=True),
        volumes=(cri.Mount(container_path="/data", host_path=host),),
    )
    found = places(spec)
    assert found[:7] == ["/proc", "/dev", "/dev/pts", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/a/"]
    assert found[7:] == ["/a", "/data", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/dev/shm", "/a/b/c"]
    assert "/run" not in found


def test_a_container_does_not_make_the_directory_of_a_pod_that_is_removed_meanwhile(tmp_path: Path) -> None:
    files = PodFiles(tmp_path / "files")
    with pytest.raises(Unknown, match="hostname is gone; the pod is being removed"):
        set_mounts(default_spec("k8s.io", "id"), POD, files, cri.ContainerConfig(), ())
    assert not files.directory.exists()


def test_a_clients_mount_takes_the_place_of_others(tmp_path: Path) -> None:
    host = str(tmp_path)
    spec = mounted(
        tmp_path,
        cri.Mount(container_path="/etc/hosts", host_path=host),
        cri.Mount(container_path="/dev", host_path=host),
        cri.Mount(container_path="/sys/fs/cgroup/", host_path=host),
        cri.Mount(container_path="/data", host_path=host),
        volumes=(cri.Mount(container_path="/data", host_path=str(tmp_path / "volume")),),
    )
    found = places(spec)
    assert found.count("/etc/hosts") == found.count("/dev") == found.count("/data") == 1
    assert "/dev/pts" not in found
    assert [each["source"] for each in spec["mounts"] if each["destination"] == "/etc/hosts"] == [host]
    assert not (tmp_path / "volume").exists()


def test_a_host_path_is_made_and_its_links_are_followed(tmp_path: Path) -> None:
    made = tmp_path / "new/directory"
    assert bind(cri.Mount(container_path="/x", host_path=str(made)), TABLE)["source"] == str(made)
    assert made.is_dir()
    assert made.stat().st_mode & 0o777 == 0o755
    link = tmp_path / "link"
    link.symlink_to(made)
    assert bind(cri.Mount(container_path="/x", host_path=str(link)), TABLE)["source"] == str(made)


def test_mounts_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(Unknown, match='failed to mkdir ""'):
        bind(cri.Mount(container_path="/x"), TABLE)
    with pytest.raises(Unknown, match="no container_path"):
        bind(cri.Mount(host_path=str(tmp_path)), TABLE)
    with pytest.raises(Unknown, match="recursive read-only mount conflicts with RW mount"):
        bind(cri.Mount(container_path="/x", host_path=str(tmp_path), recursive_read_only=True), TABLE)


@pytest.mark.parametrize(
    ("propagation", "path", "problem"),
    [
        (cri.PROPAGATION_PRIVATE, "/anything", ""),
        (cri.PROPAGATION_HOST_TO_CONTAINER, "/shared/x", ""),
        (cri.PROPAGATION_HOST_TO_CONTAINER, "/slave", ""),
        (cri.PROPAGATION_HOST_TO_CONTAINER, "/x", '"/x" is mounted on "/" but it is not a shared or slave mount'),
        (cri.PROPAGATION_BIDIRECTIONAL, "/shared/x/y", ""),
        (
            cri.PROPAGATION_BIDIRECTIONAL,
            "/slave/x",
            'path "/slave/x" is mounted on "/slave" but it is not a shared mount',
        ),
    ],
)
def test_propagation_needs_a_source_that_can(
    propagation: cri.MountPropagation.ValueType, path: str, problem: str
) -> None:
    if not problem:
        TABLE.check(path, propagation)
        return
    with pytest.raises(Unknown, match=problem):
        TABLE.check(path, propagation)


def test_options_of_a_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def options(**fields: object) -> list[str]:
        wanted = cri.Mount(container_path="/x", host_path=str(tmp_path))
        wanted.MergeFrom(cri.Mount(**fields))  # type: ignore[arg-type] # fields by their names
        return bind(wanted, MountTable({"/": ("shared:1",)}))["options"]

    monkeypatch.setattr(mounts, "recursive_read_only", lambda: True)
    assert options() == ["rbind", "rprivate", "rw"]
    assert options(readonly=True) == ["rbind", "rprivate", "ro"]
    assert options(readonly=True, recursive_read_only=True) == ["rbind", "rprivate", "rro"]
    assert options(propagation=cri.PROPAGATION_BIDIRECTIONAL) == ["rbind", "rshared", "rw"]
    with pytest.raises(Unknown, match="needs private propagation"):
        options(readonly=True, recursive_read_only=True, propagation=cri.PROPAGATION_HOST_TO_CONTAINER)
    monkeypatch.setattr(mounts, "recursive_read_only", lambda: False)
    with pytest.raises(Unknown, match="RROUnsupported"):
        options(readonly=True, recursive_read_only=True)


def test_mappings_of_ids_are_passed_on(tmp_path: Path) -> None:
    mapping = cri.IDMapping(host_id=5, container_id=0, length=9)
    made = bind(cri.Mount(container_path="/x", host_path=str(tmp_path), uidMappings=[mapping]), TABLE)
    assert made["uidMappings"] == [{"containerID": 0, "hostID": 5, "size": 9}]


def test_the_table_of_mounts_is_read(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda rw\n30 22 0:5 / /a\\040b rw master:1 propagate_from:2 - tmpfs x rw\n"
    )
    read = MountTable.read(str(table))
    assert read.peers == {"/": ["shared:1"], "/a b": ["master:1", "propagate_from:2"]}
    assert read.holding("/a b/c/d") == "/a b"


def test_devices_and_their_permissions() -> None:
    spec = default_spec("k8s.io", "id")
    config = cri.ContainerConfig()
    config.devices.add(container_path="/dev/mine", host_path="/dev/null", permissions="r")
    devices.set_devices(spec, config, host=True)
    (made,) = spec["linux"]["devices"]
    assert (made["path"], made["type"], made["major"], made["minor"]) == ("/dev/mine", "c", 1, 3)
    rule = spec["linux"]["resources"]["devices"][-1]
    assert rule == {"allow": True, "access": "r", "type": "c", "major": 1, "minor": 3}


def test_devices_that_are_not_there_or_are_not_devices(tmp_path: Path) -> None:
    with pytest.raises(Unknown, match="lstat /dev/nope: no such file or directory"):
        oci_devices.named("/dev/nope", "/dev/nope")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(Unknown, match="is not a device node"):
        oci_devices.named(str(file), "/dev/x")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: device files")
def test_all_devices_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for path in (tmp_path / "a", tmp_path / "below/b", tmp_path / "console"):
        os.mknod(path, 0o20600, os.makedev(1, 3))
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/dev/null")
    assert [each["path"] for each in oci_devices.named(str(tmp_path), "/dev/x/")] == ["/dev/x/a", "/dev/x/below/b"]
