"""What the configuration of runtimes, and the kernel's absent parts, make of a spec."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from cri.test_container_spec import plan, pod, secured

from windlass.contracts.tasks import Tasks
from windlass.contracts.values import Payload
from windlass.errors import Unimplemented, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import Containerd, Runtime, RuntimeConfig
from windlass_cri.pods import sysctls
from windlass_cri.pods.handlers import Handlers
from windlass_cri.record import Pod
from windlass_cri.spec import spec as specs
from windlass_cri.spec.basespec import read_base_spec
from windlass_cri.spec.globs import glob_matches
from windlass_cri.spec.mounts import MountTable, bind

ALL = {"allow": True, "access": "rwm"}


def privileged(**fields: object) -> tuple[cri.ContainerConfig, Pod]:
    in_pod = pod()
    in_pod.config.linux.security_context.privileged = True
    return secured(privileged=True, **fields), in_pod


def test_an_operators_spec_is_what_containers_are_made_from(tmp_path: Path) -> None:
    file = tmp_path / "base.json"
    limits = [{"type": "RLIMIT_NOFILE", "hard": 5, "soft": 4}]
    base = {
        "process": {"rlimits": limits, "capabilities": {"bounding": ["CAP_KILL"]}, "apparmorProfile": "mine"},
        "linux": {"maskedPaths": ["/operators"], "seccomp": {"defaultAction": "SCMP_ACT_LOG"}},
        "annotations": {"a": "b"},
    }
    file.write_text(json.dumps(base))
    handlers = Handlers(Containerd("x", {"x": Runtime(base_runtime_spec=str(file))}))
    made = specs.build(replace(plan(tmp_path), base=handlers.base_spec("")))
    assert made["process"]["rlimits"] == limits
    assert made["process"]["capabilities"]["bounding"] == ["CAP_KILL"]
    assert made["process"]["apparmorProfile"] == "mine"
    assert made["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_LOG"}
    assert made["linux"]["cgroupsPath"] == "/k8s.io/id"
    again = handlers.base_spec("x")
    assert again is not None and "args" not in again["process"], "no container changes what the next one starts from"


@pytest.mark.parametrize("text", ["[]", "{", '{"process": []}', '"x"'])
def test_an_operators_file_that_is_no_spec_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "base.json"
    file.write_text(text)
    with pytest.raises(Unknown, match=r"can't load base OCI spec .*base\.json.*: it is not an OCI spec"):
        read_base_spec(file)
    with pytest.raises(Unknown, match=r"can't load base OCI spec .*: No such file"):
        read_base_spec(tmp_path / "absent")


def test_devices_of_privileged_containers(tmp_path: Path) -> None:
    def made(**settings: bool) -> tuple[bool, bool]:
        config, in_pod = privileged()
        spec = specs.build(replace(plan(tmp_path, config, in_pod), runtime=Runtime(**settings)))  # type: ignore[arg-type] # by their names
        return bool(spec["linux"].get("devices")), spec["linux"]["resources"]["devices"] == [ALL]

    assert made() == (True, True)
    assert made(privileged_without_host_devices=True) == (False, False)
    every = {"privileged_without_host_devices_all_devices_allowed": True}
    assert made(privileged_without_host_devices=True, **every) == (False, True)
    with pytest.raises(ValueError, match="needs privileged_without_host_devices"):
        Runtime(**every)  # type: ignore[arg-type] # by their names


def test_devices_may_belong_to_the_user_of_the_container(tmp_path: Path) -> None:
    config = secured()
    config.linux.security_context.run_as_user.value = 1234
    config.devices.add(host_path="/dev/null", permissions="r")
    kept = specs.build(plan(tmp_path, config))["linux"]["devices"][0]
    owned = replace(plan(tmp_path, config), settings=RuntimeConfig(device_ownership_from_security_context=True))
    changed = specs.build(owned)["linux"]["devices"][0]
    assert (kept["uid"], changed["uid"], changed["gid"]) == (0, 1234, kept["gid"])


def test_control_groups_of_version_2_may_be_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of version 1 never: a release_agent is a program of the host."""
    monkeypatch.setattr(specs, "unified_cgroups", lambda: True)

    def mode(writable: bool) -> str:
        made = specs.build(replace(plan(tmp_path), runtime=Runtime(cgroup_writable=writable)))
        return next(each["options"][4] for each in made["mounts"] if each["destination"] == "/sys/fs/cgroup")

    assert (mode(False), mode(True)) == ("ro", "rw")
    monkeypatch.setattr(specs, "unified_cgroups", lambda: False)
    with pytest.raises(Unknown, match="only supported on cgroup v2"):
        mode(True)


def test_systemd_has_units_for_containers(tmp_path: Path) -> None:
    def path(parent: str) -> str:
        in_pod = pod(linux=cri.LinuxPodSandboxConfig(cgroup_parent=parent))
        runtime = Runtime(options={"SystemdCgroup": True})
        return specs.build(replace(plan(tmp_path, in_pod=in_pod), runtime=runtime))["linux"]["cgroupsPath"]

    assert path("/kubepods.slice/kubepods-a.slice") == "kubepods-a.slice:cri-containerd:id"
    assert path("") == "system.slice:cri-containerd:id"


@pytest.mark.parametrize("kind", ["rdt", "blockio"])
def test_classes_that_cannot_be_configured_are_refused_or_left_out(tmp_path: Path, kind: str) -> None:
    own = cri.ContainerConfig(annotations={f"io.kubernetes.cri.{kind}-class": "gold"})
    own.metadata.name = "c"
    beta = f"{kind}.resources.beta.kubernetes.io"
    left_out = Containerd(ignore_rdt_not_enabled_errors=True, ignore_blockio_not_enabled_errors=True)
    for config, of_pod in (
        (own, {}),
        (cri.ContainerConfig(metadata=own.metadata), {f"{beta}/container.c": "gold", f"{beta}/pod": ""}),
        (cri.ContainerConfig(metadata=own.metadata), {f"{beta}/pod": "gold"}),
    ):
        asked = plan(tmp_path, config, pod(annotations=of_pod))
        with pytest.raises(Unknown, match='class of container "c" to "gold"; classes cannot be configured'):
            specs.build(asked)
        made = specs.build(replace(asked, settings=RuntimeConfig(containerd=left_out)))
        assert "intelRdt" not in made["linux"]
    other = {f"{beta}/container.other": "gold"}
    specs.build(plan(tmp_path, cri.ContainerConfig(metadata=own.metadata), pod(annotations=other)))


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("a.b/*", "a.b/c", True),
        ("a.b/*", "a.b/c/d", False),
        ("*", "plain", True),
        ("*", "a/b", False),
        ("a?b", "axb", True),
        ("a[^x]b", "axb", False),
        ("a[^x]b", "ayb", True),
        ("A/*", "a/b", False),
        ("", "a", False),
    ],
)
def test_patterns_of_annotations_are_gos(pattern: str, key: str, expected: bool) -> None:
    assert glob_matches(pattern, key) is expected


def test_no_annotation_reaches_the_runtime_unless_the_operator_says_so(tmp_path: Path) -> None:
    """CVE-2024-3154 and CVE-2023-6476 of CRI-O: an annotation set properties of a unit, and lifted limits."""
    orders = {"org.systemd.property.ExecStartPre": "'x'", "run.oci.hooks.stderr": "/x", "cpu-quota.crio.io": "disable"}
    asked = plan(tmp_path, cri.ContainerConfig(annotations=orders), pod(annotations=orders))
    made = specs.build(asked)
    assert all(key.startswith("io.kubernetes.cri.") for key in made["annotations"])
    assert made["linux"]["resources"].get("cpu") is None
    open_to = replace(asked, runtime=Runtime(container_annotations=("run.oci.*",)))
    assert "run.oci.hooks.stderr" in specs.build(open_to)["annotations"]


def test_options_of_a_mount_beyond_its_fields(tmp_path: Path) -> None:
    wanted = cri.Mount(container_path="/x", host_path=str(tmp_path), mount_options=["noexec", "nosuid", "noexec"])
    assert bind(wanted, MountTable({"/": ()}))["options"] == ["rbind", "rprivate", "rw", "noexec", "nosuid"]
    for bad in ("rw", "rshared", "bind", "remount", "uidmap=0:0:1", "noexec,suid", ""):
        with pytest.raises(Unknown, match="is not allowed; allowed are nosuid"):
            bind(cri.Mount(container_path="/x", host_path=str(tmp_path), mount_options=[bad]), MountTable({"/": ()}))


def test_a_host_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unknown, match='host_path "relative" of /x is not absolute'):
        bind(cri.Mount(container_path="/x", host_path="relative"), MountTable({"/": ()}))
    assert list(tmp_path.iterdir()) == []


def test_what_the_runtime_is_not_able_to_do_is_refused(tmp_path: Path) -> None:
    config = cri.ContainerConfig()
    mount = config.mounts.add(container_path="/x", host_path=str(tmp_path), readonly=True, recursive_read_only=True)
    assert specs.needs_features(config, None)
    none = cri.RuntimeHandlerFeatures()
    with pytest.raises(Unknown, match="RROUnsupported: runtime handler does not support recursive read-only mounts"):
        specs.build(replace(plan(tmp_path, config), features=none))
    mount.recursive_read_only = False
    mount.uidMappings.add(host_id=1, length=1)
    with pytest.raises(Unknown, match="does not support ID-mapped mounts"):
        specs.build(replace(plan(tmp_path, config), features=none))
    assert not specs.needs_features(cri.ContainerConfig(), None)


def test_ports_and_ping_can_stay_closed() -> None:
    closed = sysctls.closed_by_default(RuntimeConfig(enable_unprivileged_ports=False, enable_unprivileged_icmp=False))
    assert closed == {"net.ipv4.ip_unprivileged_port_start": "1024", "net.ipv4.ping_group_range": "1 0"}
    assert sysctls.closed_by_default(RuntimeConfig()) == {}
    own = pod(linux=cri.LinuxPodSandboxConfig(sysctls={"net.ipv4.ping_group_range": "5 6"}))
    sent = cri.PodSandboxConfig.FromString(sysctls.with_sysctls(own, closed)).linux.sysctls
    assert dict(sent) == {"net.ipv4.ping_group_range": "5 6", "net.ipv4.ip_unprivileged_port_start": "1024"}
    host = pod()
    host.config.linux.security_context.namespace_options.network = cri.NODE
    assert not cri.PodSandboxConfig.FromString(sysctls.with_sysctls(host, closed)).linux.sysctls


def test_a_shim_of_the_operators_is_what_its_handler_runs(tmp_path: Path) -> None:
    """``runtime_path`` is asked for features, and options go to it if it takes runc's."""
    asked: list[str] = []

    async def describe(runtime: str, options: object) -> Payload:
        asked.append(runtime)
        raise Unimplemented("it does not say")

    tasks = cast(Tasks, SimpleNamespace(describe=describe))  # the one method that is called
    handlers = Handlers(Containerd("x", {"x": Runtime("a.v1", runtime_path="/opt/shim"), "y": Runtime("a.v1")}), tasks)
    found = [asyncio.run(handlers.features(name)) for name in ("x", "y", "")]
    assert asked == ["/opt/shim", "a.v1"]
    assert not any(each.user_namespaces or each.recursive_read_only_mounts for each in found)
