"""User namespaces in specs: which are understood, and what has to fit together."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cri.test_container_spec import plan, pod
from cri.test_pod_handlers import tasks

from windlass.contracts.mounts import Mount
from windlass.errors import Unknown
from windlass_api.containerd.runc.v1.options_pb2 import Options
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import Containerd, Runtime
from windlass_cri.pods.handlers import Handlers, task_options
from windlass_cri.record import Pod
from windlass_cri.spec import spec as specs
from windlass_cri.spec import userns
from windlass_oci.defaults import default_spec


def option(mode: int = cri.POD, base: int = 1000, length: int = 10) -> cri.NamespaceOption:
    made = cri.NamespaceOption(pid=cri.CONTAINER)
    made.userns_options.mode = cri.NamespaceMode.ValueType(mode)
    made.userns_options.uids.add(container_id=0, host_id=base, length=length)
    made.userns_options.gids.add(container_id=0, host_id=base, length=length)
    return made


def mapped_pod(network: int = cri.POD) -> Pod:
    made = pod()
    made.config.linux.security_context.namespace_options.CopyFrom(option())
    made.config.linux.security_context.namespace_options.network = cri.NamespaceMode.ValueType(network)
    made.namespaces = {**made.namespaces, "user": "/ns/user"}
    return made


def mapped(**changes: int) -> cri.ContainerConfig:
    config = cri.ContainerConfig()
    config.linux.security_context.namespace_options.CopyFrom(option(**changes))
    return config


def test_a_spec_joins_the_pods_user_namespace_with_its_mappings(tmp_path: Path) -> None:
    made = specs.build(plan(tmp_path, mapped(), mapped_pod()))
    assert {"type": "user", "path": "/ns/user"} in made["linux"]["namespaces"]
    expected = [{"containerID": 0, "hostID": 1000, "size": 10}]
    assert made["linux"]["uidMappings"] == made["linux"]["gidMappings"] == expected
    by_place = {each["destination"]: each for each in made["mounts"]}
    for place in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"):
        assert by_place[place]["uidMappings"] == by_place[place]["gidMappings"] == expected
    assert "uidMappings" not in by_place["/dev/shm"]


def test_with_the_hosts_network_sys_is_the_hosts_and_read_only(tmp_path: Path) -> None:
    in_pod = mapped_pod(cri.NODE)
    in_pod.namespaces = {"ipc": "/ns/ipc", "user": "/ns/user"}
    made = specs.build(plan(tmp_path, mapped(), in_pod))
    places = [each["destination"] for each in made["mounts"]]
    (sys,) = [each for each in made["mounts"] if each["destination"] == "/sys"]
    assert sys["type"] == "bind" and "rro" in sys["options"]
    assert places.index("/sys") < places.index("/sys/fs/cgroup")


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (option(cri.NODE), 'mode "NODE" with mappings'),
        (option(cri.TARGET), 'unsupported user namespace mode: "TARGET"'),
        (option(length=0), "invalid mapping length"),
        (option(base=2**32 - 5), "to end below"),
    ],
)
def test_mappings_that_cannot_be(wanted: cri.NamespaceOption, problem: str) -> None:
    with pytest.raises(Unknown, match=problem):
        userns.wanted(wanted)


def test_one_line_of_each_kind_is_needed() -> None:
    lines = option()
    lines.userns_options.uids.add(container_id=10, host_id=5, length=1)
    with pytest.raises(Unknown, match="only one mapping line supported, got 2"):
        userns.wanted(lines)
    none = option()
    none.userns_options.ClearField("gids")
    with pytest.raises(Unknown, match="without UID and GID mappings"):
        userns.wanted(none)
    assert userns.wanted(cri.NamespaceOption()) is None


def test_a_container_has_the_namespace_of_its_pod(tmp_path: Path) -> None:
    for config, in_pod in ((mapped(), pod()), (cri.ContainerConfig(), mapped_pod()), (mapped(base=5), mapped_pod())):
        with pytest.raises(Unknown, match="user namespace config for sandbox is different from container"):
            specs.build(plan(tmp_path, config, in_pod))
    gone = mapped_pod()
    gone.namespaces = pod().namespaces
    with pytest.raises(Unknown, match="has no user namespace, which its container is to join"):
        specs.build(plan(tmp_path, mapped(), gone))


def test_streams_belong_to_the_containers_user() -> None:
    spec = default_spec("k8s.io", "id")
    assert task_options(Runtime(), spec) is None
    spec["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 10}]
    spec["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 2000, "size": 10}]
    spec["process"]["user"] = {"uid": 3, "gid": 4}
    payload = task_options(Runtime(options={"BinaryName": "/bin/crun"}), spec)
    assert payload is not None
    made = Options.FromString(payload.value)
    assert (made.io_uid, made.io_gid, made.binary_name) == (1003, 2004, "/bin/crun")
    spec["process"]["user"] = {"uid": 10, "gid": 4}
    with pytest.raises(Unknown, match="runs as 10, which its user namespace does not map"):
        task_options(Runtime(), spec)


def test_files_for_volumes_have_the_images_owners() -> None:
    mounts = [Mount("overlay", "overlay", ("uidmap=0:5:1", "gidmap=0:5:1", "lowerdir=/x"))]
    assert userns.without_mappings(mounts) == [Mount("overlay", "overlay", ("lowerdir=/x",))]


async def test_a_handler_is_asked_once_for_its_features() -> None:
    asked = {"linux": {"namespaces": ["user"], "mountExtensions": {"idmap": {"enabled": True}}}}
    handlers = Handlers(Containerd(), tasks(asked))
    both = await asyncio.gather(handlers.features(""), handlers.features("runc"))
    assert all(each.user_namespaces for each in both)
    assert not (await Handlers(Containerd(), tasks({})).features("")).user_namespaces
