"""Pods with user namespaces: root of a container is nobody on the host, and all that a pod has belongs to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import groups
import grpc
import pytest
from compat.cri_daemon import IMAGE, CriDaemon, running_cri
from compat.scratch_daemon import wait_until
from compat.test_cri_podsandbox import PAUSE, archive

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.spec.mounts import unified_cgroups

BASE, LENGTH = 700_000, 65536
BUSYBOX = ("/bin/busybox", "sh", "-c")
BOTH = "both"
PAUSED = "paused"


def idmapping_runtime() -> str:
    """Return an OCI runtime with ID-mapped mounts, or skip."""
    for name in ("runc", "crun"):
        path = shutil.which(name)
        if path is None or (name == "crun" and not unified_cgroups()):  # it refuses hybrid control groups
            continue
        asked = subprocess.run([path, "features"], capture_output=True, text=True, timeout=20, check=False)
        if asked.returncode == 0:
            extensions = json.loads(asked.stdout).get("linux", {}).get("mountExtensions") or {}
            if extensions.get("idmap", {}).get("enabled"):
                return path
    pytest.skip("no OCI runtime here has ID-mapped mounts; install runc 1.2 or crun")


@pytest.fixture(scope="module")
def daemon() -> Iterator[CriDaemon]:
    cri_block = '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes'
    binary = f'BinaryName = "{idmapping_runtime()}"\n'
    more = f"{cri_block}.{BOTH}.options]\n{binary}{cri_block}.{PAUSED}.options]\n{binary}"
    more += f'{cri_block}.{PAUSED}]\nsandboxer = "podsandbox"\n'
    more += f'[plugins."io.containerd.cri.v1.images".pinned_images]\nsandbox = "{PAUSE}"\n'
    # Below pytest's own directories, which are closed, a container's root cannot reach its root file system.
    with tempfile.TemporaryDirectory(prefix="windlass-userns-") as name:
        Path(name).chmod(0o755)
        with running_cri(Path(name), more=more) as running:
            running.import_image(archive(running.scratch))
            yield running


def mapping(base: int = BASE) -> cri.NamespaceOption:
    option = cri.NamespaceOption(pid=cri.CONTAINER)
    option.userns_options.mode = cri.POD
    option.userns_options.uids.add(container_id=0, host_id=base, length=LENGTH)
    option.userns_options.gids.add(container_id=0, host_id=base, length=LENGTH)
    return option


def pod_config(daemon: CriDaemon, option: cri.NamespaceOption | None = None) -> cri.PodSandboxConfig:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.CopyFrom(option or mapping())
    return config


def container_config(
    daemon: CriDaemon, script: str = "exec sleep 1000", option: cri.NamespaceOption | None = None
) -> cri.ContainerConfig:
    config = daemon.container_config([*BUSYBOX, script])
    config.linux.security_context.namespace_options.CopyFrom(option or mapping())
    return config


@pytest.fixture(scope="module")
def pod(daemon: CriDaemon) -> Iterator[str]:
    with daemon.pod(pod_config(daemon), BOTH) as id:
        yield id


def pid_of(daemon: CriDaemon, id: str) -> int:
    request = cri.ContainerStatusRequest(container_id=id, verbose=True)
    return int(json.loads(daemon.runtime.ContainerStatus(request, timeout=20).info["info"])["pid"])


def test_root_of_a_container_is_nobody_on_the_host(daemon: CriDaemon, pod: str) -> None:
    id = daemon.run_container(pod, container_config(daemon))
    process = Path(f"/proc/{pid_of(daemon, id)}")
    assert process.stat().st_uid == BASE
    assert (process / "uid_map").read_text().split() == ["0", str(BASE), str(LENGTH)]
    assert (process / "gid_map").read_text().split() == ["0", str(BASE), str(LENGTH)]
    assert daemon.exec(id, *BUSYBOX, "id -u; id -g").split() == ["0", "0"]
    # What the image has belongs to the container's root, and so does what it makes.
    owners = "touch /new; stat -c %u /bin/busybox /etc/hosts /etc/hostname /new"
    assert daemon.exec(id, *BUSYBOX, owners).split() == ["0"] * 4
    assert daemon.exec(id, *BUSYBOX, "ip -4 addr show eth0 | grep -c 10.199; echo x > /dev/shm/x").split() == ["1"]


def test_a_pause_container_belongs_to_its_pods_user_namespace(daemon: CriDaemon) -> None:
    with daemon.pod(pod_config(daemon), PAUSED) as paused:
        pause = json.loads(daemon.pod_status(paused, verbose=True).info["info"])["pid"]
        id = daemon.run_container(paused, container_config(daemon))
        # The image's user is 65535. Its files are the namespace's, or the OCI runtime could not use them.
        assert Path(f"/proc/{pause}").stat().st_uid == BASE + 65535
        assert Path(f"/proc/{pause}/uid_map").read_text().split() == ["0", str(BASE), str(LENGTH)]
        assert os.stat(f"/proc/{pause}/ns/user").st_ino == os.stat(f"/proc/{pid_of(daemon, id)}/ns/user").st_ino
        assert daemon.exec(id, *BUSYBOX, "id -u; stat -c %u /bin/busybox /etc/hosts").split() == ["0"] * 3


def test_all_namespaces_belong_to_the_pods_user_namespace(daemon: CriDaemon, pod: str) -> None:
    ids = [daemon.run_container(pod, container_config(daemon)) for _ in range(2)]
    spaces = [
        {kind: os.stat(f"/proc/{pid_of(daemon, id)}/ns/{kind}").st_ino for kind in ("user", "net", "ipc", "uts")}
        for id in ids
    ]
    assert spaces[0] == spaces[1]
    assert all(inode != os.stat(f"/proc/self/ns/{kind}").st_ino for kind, inode in spaces[0].items())
    # Root of the pod is root of its network: it can make an interface, which takes CAP_NET_ADMIN.
    config = container_config(daemon)
    config.linux.security_context.capabilities.add_capabilities.append("NET_ADMIN")
    id = daemon.run_container(pod, config)
    assert daemon.exec(id, *BUSYBOX, "ip link set lo down && ip link set lo up && echo changed").strip() == "changed"


def test_a_container_is_in_its_pods_control_group(daemon: CriDaemon, pod: str) -> None:
    """CVE-2025-47291: containers with user namespaces were outside of the pod's, and had no limits."""
    config = container_config(daemon)
    config.linux.resources.memory_limit_in_bytes = 64 << 20
    id = daemon.run_container(pod, config)
    lines = Path(f"/proc/{pid_of(daemon, id)}/cgroup").read_text().splitlines()
    assert all(
        line.endswith(f"/{groups.NAME}/{id}")
        for line in lines
        if "memory" in line or line.startswith("0::/" + groups.NAME)
    )
    assert any(line.endswith(f"/{groups.NAME}/{id}") for line in lines)
    # It can neither leave the group nor change it.
    script = (
        "cd /sys/fs/cgroup; for file in memory/memory.limit_in_bytes memory/cgroup.procs memory.max cgroup.procs; "
        "do [ -e $file ] && (echo 1 > $file) 2>/dev/null && echo changed $file; done; true"
    )
    assert daemon.exec(id, *BUSYBOX, script) == ""


def test_volumes_show_their_owners_as_they_are(daemon: CriDaemon, pod: str) -> None:
    volume = daemon.scratch / "volume"
    volume.mkdir()
    (volume / "mine").write_text("x")
    os.chown(volume / "mine", 1000, 1000)
    config = container_config(daemon)
    mount = config.mounts.add(container_path="/volume", host_path=str(volume))
    mount.uidMappings.add(container_id=0, host_id=BASE, length=LENGTH)
    mount.gidMappings.add(container_id=0, host_id=BASE, length=LENGTH)
    id = daemon.run_container(pod, config)
    assert daemon.exec(id, *BUSYBOX, "stat -c %u /volume/mine; touch /volume/new; stat -c %u /volume/new").split() == [
        "1000",
        "0",
    ]
    assert (volume / "new").stat().st_uid == 0


def test_volumes_of_images_belong_to_the_container(daemon: CriDaemon, pod: str) -> None:
    config = container_config(daemon)
    mount = config.mounts.add(container_path="/image", readonly=True)
    mount.image.image = IMAGE
    mount.uidMappings.add(container_id=0, host_id=BASE, length=LENGTH)
    mount.gidMappings.add(container_id=0, host_id=BASE, length=LENGTH)
    id = daemon.run_container(pod, config)
    assert daemon.exec(id, *BUSYBOX, "stat -c %u /image /image/bin/busybox").split() == ["0", "0"]


def test_a_user_of_the_container_can_open_its_streams_again(daemon: CriDaemon, pod: str) -> None:
    config = container_config(daemon, "echo through > /dev/stdout; exec sleep 1000")
    config.linux.security_context.run_as_user.value = 1000
    id = daemon.run_container(pod, config)
    log = Path(daemon.container_status(id).log_path)
    assert wait_until(lambda: "stdout F through" in log.read_text())


def test_a_pod_of_the_hosts_network(daemon: CriDaemon) -> None:
    option = mapping()
    option.network = cri.NODE
    with daemon.pod(pod_config(daemon, option), BOTH) as pod:
        id = daemon.run_container(pod, container_config(daemon, option=option))
        process = f"/proc/{pid_of(daemon, id)}"
        assert os.stat(f"{process}/ns/net").st_ino == os.stat(daemon.host).st_ino
        assert os.stat(f"{process}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
        assert daemon.exec(
            id, *BUSYBOX, "id -u; ls /sys/class/net | grep -c lo; mkdir /sys/fs/x 2>/dev/null || echo read-only"
        ).split() == ["0", "1", "read-only"]


def test_a_shared_pid_namespace_is_the_pods_too(daemon: CriDaemon) -> None:
    option = mapping()
    option.pid = cri.POD
    with daemon.pod(pod_config(daemon, option), BOTH) as pod:
        id = daemon.run_container(pod, container_config(daemon, option=option))
        assert daemon.exec(id, *BUSYBOX, "cat /proc/1/comm; stat -c %u /proc/1").split() == ["windlass-pod", "0"]


def test_pods_survive_the_daemon(daemon: CriDaemon) -> None:
    with daemon.pod(pod_config(daemon), BOTH) as pod:
        first = daemon.run_container(pod, container_config(daemon))
        daemon.kill()
        daemon.start()
        second = daemon.run_container(pod, container_config(daemon))
        spaces = {os.stat(f"/proc/{pid_of(daemon, id)}/ns/user").st_ino for id in (first, second)}
        assert len(spaces) == 1


def refusal(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    assert caught.value.code() == grpc.StatusCode.UNKNOWN
    return caught.value.details() or ""


def test_what_is_refused(daemon: CriDaemon, pod: str) -> None:
    without = daemon.container_config()
    assert "user namespace config for sandbox is different from container" in refusal(
        daemon.create_container, pod, without
    )
    other = container_config(daemon, option=mapping(BASE + LENGTH))
    assert "different from container" in refusal(daemon.create_container, pod, other)
    two = mapping()
    two.userns_options.uids.add(container_id=LENGTH, host_id=1, length=1)
    assert "only one mapping line supported, got 2" in refusal(daemon.run_pod, pod_config(daemon, two), BOTH)
    none = mapping()
    none.userns_options.ClearField("gids")
    assert "without UID and GID mappings" in refusal(daemon.run_pod, pod_config(daemon, none), BOTH)
    node = mapping()
    node.userns_options.mode = cri.NODE
    assert 'mode "NODE" with mappings' in refusal(daemon.run_pod, pod_config(daemon, node), BOTH)
    target = mapping()
    target.userns_options.mode = cri.TARGET
    assert 'unsupported user namespace mode: "TARGET"' in refusal(daemon.run_pod, pod_config(daemon, target), BOTH)
    outside = container_config(daemon)
    outside.linux.security_context.run_as_user.value = LENGTH + 5
    id = daemon.create_container(pod, outside)
    assert f"runs as {LENGTH + 5}, which its user namespace does not map" in refusal(daemon.start_container, id)


def test_the_handlers_say_whether_they_have_it(daemon: CriDaemon) -> None:
    status = daemon.runtime.Status(cri.StatusRequest(), timeout=20)
    able = {each.name: each.features.user_namespaces for each in status.runtime_handlers}
    assert able[BOTH]
    assert status.features.user_namespaces_host_network and status.features.mount_options
