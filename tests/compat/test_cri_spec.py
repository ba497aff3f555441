"""What containers of CRI are given, seen from inside: CDI devices, images as volumes, the operator's own spec."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from compat.cri_daemon import IMAGE, CriDaemon, running_cri
from compat.images import Archive, busybox_layer, layer
from compat.scratch_daemon import wait_until
from snapshot_erofs.conftest import missing

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_linux.mounting import mounts_below

BUSYBOX = ("/bin/busybox", "sh", "-c")
RUNTIME = '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes'


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriDaemon]:
    scratch = tmp_path_factory.mktemp("spec")
    # One value for both: Go's start in `runc init` may raise the soft limit to the hard one.
    base = {"process": {"rlimits": [{"type": "RLIMIT_NOFILE", "hard": 77, "soft": 77}]}}
    (scratch / "base.json").write_text(json.dumps(base))
    runtime = (
        f'cdi_spec_dirs = ["{scratch}/cdi"]\nenable_unprivileged_ports = false\nenable_unprivileged_icmp = false\n'
    )
    more = (
        f'{RUNTIME}.based]\nbase_runtime_spec = "{scratch}/base.json"\n'
        f'{RUNTIME}.layered]\nsnapshotter = "erofs"\n'
        f"{RUNTIME}.bare]\nprivileged_without_host_devices = true\n"
    )
    with running_cri(scratch, runtime=runtime, more=more) as running:
        yield running


def refusal(daemon: CriDaemon, pod: str, config: cri.ContainerConfig) -> str:
    with pytest.raises(grpc.RpcError) as failure:
        daemon.create_container(pod, config)
    assert failure.value.code() == grpc.StatusCode.UNKNOWN
    return failure.value.details() or ""


def test_a_cdi_device_is_in_the_container(daemon: CriDaemon) -> None:
    edits = {
        "env": ["GPU=one"],
        "deviceNodes": [{"path": "/dev/gpu", "hostPath": "/dev/null"}],
        "mounts": [{"hostPath": str(daemon.scratch), "containerPath": "/opt/driver", "options": ["ro", "bind"]}],
        "additionalGids": [4711],
    }
    document = {
        "cdiVersion": "0.7.0",
        "kind": "vendor.com/gpu",
        "devices": [{"name": "one", "containerEdits": edits}],
    }
    (daemon.scratch / "cdi").mkdir()
    (daemon.scratch / "cdi/gpu.json").write_text(json.dumps(document))
    with daemon.pod() as pod:
        config = daemon.container_config()
        config.CDI_devices.add(name="vendor.com/gpu=one")
        id = daemon.run_container(pod, config)
        # Reading it is reading /dev/null, which the control group of devices has to allow.
        script = "echo $GPU; id -G; ls -d /opt/driver/logs; cat /dev/gpu; echo x > /dev/gpu && echo written"
        assert daemon.exec(id, *BUSYBOX, script).split() == ["one", "0", "4711", "/opt/driver/logs", "written"]
        config.metadata.attempt += 1
        config.CDI_devices.add(name="vendor.com/gpu=two")
        assert "unresolvable CDI devices vendor.com/gpu=two" in refusal(daemon, pod, config)


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_an_image_of_layers_that_need_handlers_is_a_volume(daemon: CriDaemon) -> None:
    """Its mounts are file systems in files, which an activation of the mount manager makes and keeps."""
    with daemon.pod(handler="layered") as pod:
        config = daemon.container_config()
        mount = config.mounts.add(container_path="/image", readonly=True)
        mount.image.image = IMAGE
        id = daemon.run_container(pod, config)
        assert "busybox" in daemon.exec(id, "ls", "/image/bin")
        daemon.kill()
        daemon.start()
        config.metadata.attempt += 1
        mount.image_sub_path = "bin"
        other = daemon.run_container(pod, config)
        assert "busybox" in daemon.exec(other, "ls", "/image")
        where = daemon.container_status(id).mounts[0].host_path
    assert not Path(where).exists()
    assert [each for each in mounts_below(daemon.scratch) if "image-volume" in each] == []
    left = daemon.ctr("-n", "k8s.io", "snapshots", "--snapshotter", "erofs", "ls").stdout
    assert "image-volumes" not in left


def test_containers_are_made_from_the_operators_spec(daemon: CriDaemon) -> None:
    with daemon.pod(handler="based") as pod:
        id = daemon.run_container(pod)
        assert daemon.exec(id, *BUSYBOX, "ulimit -n; ulimit -Hn").split() == ["77", "77"]


def test_a_privileged_container_without_the_hosts_devices(daemon: CriDaemon) -> None:
    in_pod = daemon.pod_config()
    in_pod.linux.security_context.privileged = True
    config = daemon.container_config()
    config.linux.security_context.privileged = True
    with daemon.pod(in_pod, "bare") as pod:
        bare = set(daemon.exec(daemon.run_container(pod, config), "ls", "/dev").split())
    in_pod.metadata.attempt += 1
    with daemon.pod(in_pod) as pod:
        assert bare < set(daemon.exec(daemon.run_container(pod, config), "ls", "/dev").split())


def test_ports_and_ping_stay_closed_if_the_operator_says_so(daemon: CriDaemon) -> None:
    with daemon.pod() as pod:
        id = daemon.run_container(pod)
        files = "/proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range"
        assert daemon.exec(id, *BUSYBOX, f"cat {files}").split() == ["1024", "1", "0"]


def test_options_of_mounts_have_an_effect(daemon: CriDaemon, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    with daemon.pod() as pod:
        config = daemon.container_config()
        config.mounts.add(container_path="/open", host_path=str(tmp_path))
        config.mounts.add(container_path="/shut", host_path=str(tmp_path), mount_options=["noexec", "nosuid"])
        id = daemon.run_container(pod, config)
        assert daemon.exec(id, "/open/program").strip() == "ran"
        request = cri.ExecSyncRequest(container_id=id, cmd=["/bin/busybox", "sh", "-c", "/shut/program"], timeout=20)
        assert daemon.runtime.ExecSync(request, timeout=40).exit_code == 126


def test_a_container_sees_the_hosts_processes_only_with_its_pod(daemon: CriDaemon) -> None:
    with daemon.pod() as pod:
        config = daemon.container_config()
        config.linux.security_context.namespace_options.pid = cri.NODE
        id = daemon.run_container(pod, config)
        assert daemon.exec(id, *BUSYBOX, "cat /proc/1/comm").strip() == "windlass-pod"


def test_the_default_seccomp_profile_has_no_af_alg(daemon: CriDaemon) -> None:
    """Closed in containerd 2.3.1: code in the kernel's crypto sockets that a container reaches."""
    with daemon.pod() as pod:
        config = daemon.container_config()
        config.linux.security_context.seccomp.profile_type = cri.SecurityProfile.RuntimeDefault
        id = daemon.create_container(pod, config)
        request = cri.ContainerStatusRequest(container_id=id, verbose=True)
        info = json.loads(daemon.runtime.ContainerStatus(request, timeout=20).info["info"])
        rules = info["runtimeSpec"]["linux"]["seccomp"]["syscalls"]
        sockets = [rule for rule in rules if "socket" in rule["names"]]
        assert sockets and all(rule.get("args") for rule in sockets)
        assert not any(_allows(rule["args"], 38) for rule in sockets)


def _allows(conditions: list[dict[str, object]], family: int) -> bool:
    compared = {
        "SCMP_CMP_EQ": lambda value: family == value,
        "SCMP_CMP_NE": lambda value: family != value,
        "SCMP_CMP_LT": lambda value: family < value,
        "SCMP_CMP_GT": lambda value: family > value,
        "SCMP_CMP_LE": lambda value: family <= value,
        "SCMP_CMP_GE": lambda value: family >= value,
    }
    return all(compared[str(each["op"])](each["value"]) for each in conditions if each["index"] == 0)


def image(daemon: CriDaemon, name: str, *layers: bytes, **execution: object) -> str:
    """Import an image and return its name."""
    reference = f"docker.io/library/{name}:1"
    daemon.import_image(
        Archive(daemon.scratch / f"{name}.tar", reference, [busybox_layer(), *layers], None, **execution)
    )
    wanted = cri.ImageStatusRequest(image=cri.ImageSpec(image=reference))
    assert wait_until(lambda: daemon.images.ImageStatus(wanted).image.id)
    return reference


def test_labels_of_an_image_do_not_become_orders(daemon: CriDaemon) -> None:
    """CVE-2026-53488: the restart monitor executed what an image's label says."""
    marked = {
        "containerd.io/restart.status": "running",
        "containerd.io/restart.loguri": "binary:///bin/true",
        "io.cri-containerd.kind": "sandbox",
        "harmless": "kept",
    }
    with daemon.pod() as pod:
        config = daemon.container_config()
        config.image.image = image(daemon, "labels", Labels=marked)
        id = daemon.create_container(pod, config)
        labels = json.loads(daemon.ctr("-n", "k8s.io", "containers", "info", id).stdout)["Labels"]
    assert labels["io.cri-containerd.kind"] == "container" and labels["harmless"] == "kept"
    assert not [key for key in labels if key.startswith("containerd.io/restart")]


def special(name: str) -> bytes:
    """Return a layer with a FIFO in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.type = tarfile.FIFOTYPE
        tar.addfile(entry)
    return out.getvalue()


def test_accounts_of_an_image_are_bounded_and_files(daemon: CriDaemon) -> None:
    """CVE-2026-47262: a passwd or group file without bound, or of a special kind, stopped the daemon."""
    huge = b"x" * (11 << 20)
    with daemon.pod() as pod:
        for name, upper, problem in (
            ("hugepasswd", layer({"etc/passwd": huge}), "the limit is"),
            ("hugegroup", layer({"etc/group": huge}), "the limit is"),
            ("fifogroup", special("etc/group"), "not a regular file"),
        ):
            config = daemon.container_config()
            config.image.image = image(daemon, name, upper)
            config.linux.security_context.run_as_username = "root"
            assert problem in refusal(daemon, pod, config), name


def test_a_user_of_an_image_out_of_range_is_not_root(daemon: CriDaemon) -> None:
    """CVE-2026-46680 and CVE-2024-40635: a number too large was root."""
    with daemon.pod() as pod:
        for number, user in enumerate(("4294967296", "-1", "99999999999999999999:0", "0:4294967296")):
            config = daemon.container_config()
            config.image.image = image(daemon, f"user{number}", User=user)
            assert refusal(daemon, pod, config), user


def test_a_user_or_group_of_a_client_out_of_range_is_not_root(daemon: CriDaemon) -> None:
    with daemon.pod() as pod:
        config = daemon.container_config()
        config.linux.security_context.run_as_user.value = 2**32
        assert refusal(daemon, pod, config)
        config.linux.security_context.run_as_user.value = 1
        config.linux.security_context.supplemental_groups.append(2**32)
        assert f"supplemental group {2**32} is not from 0" in refusal(daemon, pod, config)


def test_names_ids_and_log_paths_lead_nowhere_else(daemon: CriDaemon) -> None:
    """CVE-2025-0750 of CRI-O: what a client names was a path out of the pod's directory."""
    bait = daemon.scratch / "bait"
    bait.mkdir()
    config = daemon.pod_config()
    config.metadata.name, config.metadata.uid, config.metadata.namespace = "../../../bait/x", "..", "/etc"
    with daemon.pod(config) as pod:
        wanted = daemon.container_config(name="../../bait/y", log_path="c.log")
        id = daemon.create_container(pod, wanted)
        assert Path(daemon.container_status(id).log_path).parent == Path(config.log_directory)
        wanted.metadata.attempt += 1
        wanted.log_path = "../bait/z"
        assert "is not below the log_directory" in refusal(daemon, pod, wanted)
        for path in ("../../bait", str(bait), f"{pod}/../{pod}", "..", "/"):
            with pytest.raises(grpc.RpcError) as failure:
                daemon.pod_status(path)
            assert failure.value.code() == grpc.StatusCode.NOT_FOUND
            daemon.remove_pod(path)
            daemon.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=path), timeout=20)
        assert daemon.container_status(id).id == id
    assert list(bait.iterdir()) == []


def test_a_sysctl_s_value_sets_nothing_else(daemon: CriDaemon) -> None:
    """CVE-2022-0811 of CRI-O: a value with a separator set kernel.core_pattern, and so a program of the host."""
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    for name, value in (
        ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/bin/true #"),
        ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/bin/true"),
        ("kernel.core_pattern", "|/bin/true"),
        ("net/../kernel/core_pattern", "|/bin/true"),
        ("net.ipv4.conf.all.forwarding/../../../../kernel/core_pattern", "|/bin/true"),
    ):
        config = daemon.pod_config()
        config.linux.sysctls[name] = value
        with pytest.raises(grpc.RpcError):
            daemon.run_pod(config)
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before
