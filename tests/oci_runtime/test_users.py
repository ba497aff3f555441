"""User namespaces: new ones, those of others, and mounts whose owners are mapped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from oci_runtime.bundles import Runtime, Spec, spec

from windlass.errors import InvalidArgument
from windlass_oci_runtime.report import Failure

MAPS = [{"containerID": 0, "hostID": 300000, "size": 1000}]


def in_namespace(*arguments: str, **more: object) -> Spec:
    document = spec(*arguments, uidMappings=MAPS, gidMappings=MAPS, **more)
    document["linux"]["namespaces"].append({"type": "user"})
    return document


@pytest.fixture
def mapped(runtime: Runtime) -> Runtime:
    """A root file system that root of the container owns, and that its user on the host can reach."""
    for path in (runtime.rootfs, *runtime.rootfs.rglob("*")):
        os.chown(path, 300000, 300000, follow_symlinks=False)
    return runtime


def test_ids_are_mapped_and_root_is_root_inside_only(mapped: Runtime) -> None:
    code, output = mapped.run(in_namespace("sh", "-c", "id -u; cat /proc/self/uid_map; touch /made; ls -l /dev/null"))
    lines = output.split("\n")
    assert (code, lines[0], lines[1].split()) == (0, "0", ["0", "300000", "1000"])
    assert os.stat(mapped.rootfs / "made").st_uid == 300000
    assert lines[2].startswith("crw-rw-rw-")


def test_a_source_that_only_root_of_the_host_can_reach_is_mounted(mapped: Runtime, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    (secret / "shared").mkdir(parents=True)
    (secret / "shared/file").write_text("seen")
    secret.chmod(0o700)
    document = in_namespace("cat", "/data/file")
    document["mounts"].append(
        {"destination": "/data", "type": "bind", "source": str(secret / "shared"), "options": ["rbind"]}
    )
    assert mapped.run(document) == (0, "seen")


def test_owners_of_a_mount_are_mapped_as_the_container(mapped: Runtime, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "roots").write_text("")
    (shared / "ones").write_text("")
    os.chown(shared / "ones", 1, 1)
    document = in_namespace("stat", "-c", "%u", "/data/roots", "/data/ones")
    document["mounts"].append(
        {"destination": "/data", "type": "bind", "source": str(shared), "options": ["rbind", "idmap"]}
    )
    assert mapped.run(document) == (0, "0\n1\n")


def test_owners_of_a_mount_are_mapped_as_it_says(runtime: Runtime, tmp_path: Path) -> None:
    """Without any user namespace."""
    shared = tmp_path / "shared"
    shared.mkdir()
    document = spec("stat", "-c", "%u", "/data")
    maps = [{"containerID": 0, "hostID": 7, "size": 10}]
    document["mounts"].append(
        {
            "destination": "/data",
            "type": "bind",
            "source": str(shared),
            "options": ["bind"],
            "uidMappings": maps,
            "gidMappings": maps,
        }
    )
    assert runtime.run(document) == (0, "7\n")


def test_a_container_joins_the_user_namespace_of_another(mapped: Runtime) -> None:
    """As the containers of a pod do, with the pod's network."""
    first = mapped.create(in_namespace("sleep", "1000"))
    try:
        first.start()
        document = spec(
            "sh", "-c", "id -u; cat /proc/self/uid_map; cat /proc/1/comm; true", uidMappings=MAPS, gidMappings=MAPS
        )
        paths = {"network": "net", "ipc": "ipc", "user": "user"}
        document["linux"]["namespaces"] = [
            {"type": "pid"},
            {"type": "mount"},
            {"type": "uts"},
            *({"type": kind, "path": f"/proc/{first.pid}/ns/{file}"} for kind, file in paths.items()),
        ]
        code, output = mapped.run(document)
        assert (code, output.split()) == (0, ["0", "0", "300000", "1000", "sh"])
        assert first.exec(["id", "-u"]) == (0, "0\n")
    finally:
        first.kill()


def test_a_new_one_beside_a_network_that_is_there(mapped: Runtime) -> None:
    document = in_namespace("sh", "-c", "id -u; ls /proc/self/ns/net -l")
    kinds = document["linux"]["namespaces"]
    kinds[[each["type"] for each in kinds].index("network")]["path"] = "/proc/self/ns/net"
    code, output = mapped.run(document)
    assert code == 0 and os.readlink("/proc/self/ns/net") in output


def test_an_exec_is_root_of_the_container(mapped: Runtime) -> None:
    box = mapped.create(in_namespace("sleep", "1000"))
    try:
        box.start()
        assert box.exec(["sh", "-c", "id -u; touch /by-exec"]) == (0, "0\n")
        assert os.stat(mapped.rootfs / "by-exec").st_uid == 300000
    finally:
        box.kill()


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        ([], "a new user namespace needs linux.uidMappings and linux.gidMappings"),
        ([{"containerID": 0, "hostID": -1, "size": 1}], "linux.uidMappings: 0:-1:1 is not a range of IDs"),
        ([{"containerID": 0, "hostID": 1, "size": 0}], "linux.uidMappings: 0:1:0 is not a range of IDs"),
    ],
)
def test_maps_that_cannot_be_are_refused(runtime: Runtime, maps: list[dict[str, int]], words: str) -> None:
    document = in_namespace("true")
    document["linux"].update(uidMappings=maps, gidMappings=maps)
    with pytest.raises(InvalidArgument, match=words):
        runtime.create(document)


def test_maps_without_a_namespace_are_refused(runtime: Runtime) -> None:
    with pytest.raises(InvalidArgument, match="need a user namespace"):
        runtime.create(spec("true", uidMappings=MAPS, gidMappings=MAPS))


def test_overlapping_ranges_are_an_error_of_linux_that_names_them(runtime: Runtime) -> None:
    document = in_namespace("true")
    document["linux"]["uidMappings"] = MAPS * 2
    with pytest.raises(OSError, match="uid_map '0 300000 1000"):
        runtime.create(document)


def test_who_is_nobody_inside_cannot_be_root(runtime: Runtime) -> None:
    document = in_namespace("true")
    document["linux"]["uidMappings"] = [{"containerID": 5, "hostID": 300000, "size": 1}]
    with pytest.raises(Failure, match="cannot become root of the user namespace: invalid argument; map ID 0"):
        runtime.create(document)
