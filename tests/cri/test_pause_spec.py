"""The spec of a pause container: its namespaces, what is set in them, and what holds it to its pod's wishes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from windlass.contracts.values import Platform
from windlass.errors import Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import Runtime, RuntimeConfig
from windlass_cri.pods.files import PodFiles
from windlass_cri.podsandbox import pausespec
from windlass_cri.record import Pod, PodData
from windlass_images.manifests import ImageConfig
from windlass_oci.runtime_spec import Spec

PLATFORM = Platform("linux", "amd64")
NETNS = "/var/run/netns/cni-1"
NODE = cri.NamespaceOption(network=cri.NODE, pid=cri.NODE, ipc=cri.NODE)


def plan(
    security: cri.LinuxSandboxSecurityContext | None = None,
    image: ImageConfig | None = None,
    runtime: Runtime | None = None,
    **config: object,
) -> pausespec.Plan:
    made = cri.PodSandboxConfig(**config)  # type: ignore[arg-type] # fields by their names
    made.linux.security_context.CopyFrom(security or cri.LinuxSandboxSecurityContext())
    return pausespec.Plan(
        pod=Pod("pod1", made, PodData("p", netns=NETNS)),
        files=PodFiles(Path("/files")),
        image_name="pause:1",
        image=image or ImageConfig(PLATFORM, (), entrypoint=("/pause",), user="65535"),
        runtime=runtime or Runtime(),
        settings=RuntimeConfig(),
        sysctls=dict(made.linux.sysctls),
    )


def kinds(spec: Spec) -> dict[str, str]:
    return {each["type"]: each.get("path", "") for each in spec["linux"]["namespaces"]}


def mounted(spec: Spec) -> dict[str, list[str]]:
    return {each["destination"]: each["options"] for each in spec["mounts"]}


def test_a_pod_has_its_own_namespaces_in_the_network_that_was_made() -> None:
    spec = pausespec.build(plan(hostname="web"))
    assert kinds(spec) == {"mount": "", "pid": "", "ipc": "", "uts": "", "network": NETNS}
    assert spec["linux"]["sysctl"] == pausespec.SYSCTLS
    assert spec["linux"]["cgroupsPath"] == "/k8s.io/pod1"
    sources = {each["destination"]: each["source"] for each in spec["mounts"]}
    assert sources["/dev/shm"] == "/files/shm" and sources["/etc/resolv.conf"] == "/files/resolv.conf"


def test_a_pod_in_the_hosts_namespaces_has_none_and_sets_nothing() -> None:
    spec = pausespec.build(plan(cri.LinuxSandboxSecurityContext(namespace_options=NODE)))
    assert kinds(spec) == {"mount": ""} and "sysctl" not in spec["linux"]
    assert {each["source"] for each in spec["mounts"] if each["destination"] == "/dev/shm"} == {"/dev/shm"}


def test_a_user_namespace_is_joined_or_made() -> None:
    wanted = cri.NamespaceOption()
    wanted.userns_options.mode = cri.POD
    for ids in (wanted.userns_options.uids, wanted.userns_options.gids):
        ids.add(container_id=0, host_id=100000, length=65536)
    given = plan(cri.LinuxSandboxSecurityContext(namespace_options=wanted))
    owned = pausespec.build(replace(given, user_namespace=Path("/files/user")))
    assert kinds(owned)["user"] == "/files/user" and owned["linux"]["uidMappings"][0]["hostID"] == 100000
    assert pausespec.PING not in owned["linux"]["sysctl"]
    wanted.network = cri.NODE
    alone = pausespec.build(plan(cri.LinuxSandboxSecurityContext(namespace_options=wanted)))
    assert kinds(alone)["user"] == "" and "rro" in mounted(alone)["/sys"]


def test_a_privileged_pod_may_write_to_sys_and_has_no_seccomp() -> None:
    profile = cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)
    confined = pausespec.build(plan(cri.LinuxSandboxSecurityContext(seccomp=profile)))
    assert confined["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO" and "ro" in mounted(confined)["/sys"]
    free = pausespec.build(plan(cri.LinuxSandboxSecurityContext(seccomp=profile, privileged=True)))
    assert "seccomp" not in free["linux"] and "rw" in mounted(free)["/sys"]


def test_its_group_is_the_pods() -> None:
    linux = cri.LinuxPodSandboxConfig(cgroup_parent="kubepods-pod1.slice")
    assert pausespec.build(plan(linux=linux))["linux"]["cgroupsPath"] == "kubepods-pod1.slice:cri-containerd:pod1"
    systemd = pausespec.build(plan(runtime=Runtime(options={"SystemdCgroup": True})))
    assert systemd["linux"]["cgroupsPath"] == "system.slice:cri-containerd:pod1"


def test_the_image_says_what_runs_and_the_client_who() -> None:
    image = ImageConfig(
        PLATFORM, (), entrypoint=("/pause",), command=("-v",), env=("A=b",), working_dir="/w", user="65535"
    )
    made = plan(image=image)
    process = pausespec.build(made)["process"]
    assert (process["args"], process["env"], process["cwd"]) == (["/pause", "-v"], ["A=b"], "/w")
    assert pausespec.user_name(made) == "65535"
    security = cri.LinuxSandboxSecurityContext(
        run_as_user=cri.Int64Value(value=5), run_as_group=cri.Int64Value(value=6)
    )
    assert pausespec.user_name(plan(security)) == "5:6"
    with pytest.raises(Unknown, match="neither an entrypoint nor a command"):
        pausespec.build(plan(image=ImageConfig(PLATFORM, ())))


def test_annotations_that_the_runtime_lets_through_are_there() -> None:
    runtime = Runtime(pod_annotations=("kata.*",))
    found = pausespec.build(plan(runtime=runtime, annotations={"kata.x": "1", "other": "2"}))["annotations"]
    assert found["kata.x"] == "1" and "other" not in found
    assert found["io.kubernetes.cri.container-type"] == "sandbox"
