"""A container's spec is what containerd makes of the same request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cri.pod_files import made_files

from windlass.contracts.values import Platform
from windlass.errors import InvalidArgument, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import Runtime, RuntimeConfig
from windlass_cri.containers import signals
from windlass_cri.containers.creation import log_path
from windlass_cri.record import Pod, PodData
from windlass_cri.spec import spec as specs
from windlass_cri.spec.resources import Host, cgroups_path, resources, resources_of, set_resources
from windlass_cri.spec.users import name_of, with_groups
from windlass_images.manifests import ImageConfig
from windlass_oci.defaults import MASKED, default_spec
from windlass_oci.users import Accounts

IMAGE = ImageConfig(
    Platform("linux", "amd64"),
    (),
    env=("PATH=/image/bin", "FOO=bar", "novalue"),
    entrypoint=("/entry",),
    command=("arg",),
    working_dir="/work",
)
HOST = Host(swap=True, huge_pages=True)


def pod(**options: object) -> Pod:
    config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="p", namespace="n", uid="u"), hostname="podhost")
    config.MergeFrom(cri.PodSandboxConfig(**options))  # type: ignore[arg-type] # fields by their names
    return Pod(
        "podid", config, PodData("p_n_u_0"), True, {kind: f"/ns/{kind}" for kind in ("net", "ipc", "uts", "pid")}
    )


def plan(tmp_path: Path, config: cri.ContainerConfig | None = None, in_pod: Pod | None = None) -> specs.Plan:
    files = made_files(tmp_path / "files")
    return specs.Plan(
        in_pod or pod(), files, "id", config or cri.ContainerConfig(), IMAGE, Runtime(), RuntimeConfig(), host=HOST
    )


def secured(**fields: object) -> cri.ContainerConfig:
    config = cri.ContainerConfig()
    wanted = cri.LinuxContainerSecurityContext(**fields)  # type: ignore[arg-type] # fields by their names
    config.linux.security_context.CopyFrom(wanted)
    return config


@pytest.mark.parametrize(
    ("command", "args", "entrypoint", "expected"),
    [
        ([], [], ("/entry",), ["/entry", "arg"]),
        ([], ["mine"], ("/entry",), ["/entry", "mine"]),
        (["cmd"], [], ("/entry",), ["cmd"]),
        (["cmd"], ["mine"], ("/entry",), ["cmd", "mine"]),
        ([], [], ("",), ["arg"]),
    ],
)
def test_arguments(command: list[str], args: list[str], entrypoint: tuple[str, ...], expected: list[str]) -> None:
    config = cri.ContainerConfig(command=command, args=args)
    assert specs.arguments(config, replace(IMAGE, entrypoint=entrypoint)) == expected


def test_a_container_without_any_command_is_refused() -> None:
    with pytest.raises(Unknown, match="no command specified"):
        specs.arguments(cri.ContainerConfig(), replace(IMAGE, entrypoint=(), command=()))


def test_environment_has_its_first_variables_in_their_places_and_doubles_as_they_are() -> None:
    config = cri.ContainerConfig(tty=True)
    config.envs.add(key="FOO", value=b"over")
    config.envs.add(key="HOSTNAME", value=b"mine")
    assert specs.environment(pod(), config, IMAGE) == [
        "PATH=/image/bin",
        "TERM=xterm",
        "HOSTNAME=mine",
        "FOO=bar",
        "FOO=over",
    ]


def test_default_path_and_hostname_of_the_pod() -> None:
    assert specs.environment(pod(), cri.ContainerConfig(), replace(IMAGE, env=())) == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=podhost",
    ]


def test_namespaces_by_pid_mode() -> None:
    def pid(mode: cri.NamespaceMode.ValueType, target: int = 0) -> list[object]:
        security = cri.LinuxContainerSecurityContext(namespace_options=cri.NamespaceOption(pid=mode))
        return [each for each in specs.namespaces(in_pod, security, target) if each["type"] == "pid"]

    in_pod = pod()
    assert pid(cri.POD) == [{"type": "pid", "path": "/ns/pid"}]
    assert pid(cri.CONTAINER) == [{"type": "pid"}]
    assert pid(cri.NODE) == [{"type": "pid", "path": "/ns/pid"}], "only its pod opens the host's processes to it"
    assert pid(cri.TARGET, 77) == [{"type": "pid", "path": "/proc/77/ns/pid"}]
    in_pod.config.linux.security_context.namespace_options.pid = cri.NODE
    assert pid(cri.NODE) == pid(cri.POD) == []


def test_the_default_pid_mode_is_the_pods_and_needs_one() -> None:
    without = pod()
    without.namespaces = {}
    with pytest.raises(Unknown, match="shares no PID namespace"):
        specs.namespaces(without, cri.LinuxContainerSecurityContext())


def test_a_spec_in_full(tmp_path: Path) -> None:
    config = secured(readonly_rootfs=True, no_new_privs=True, masked_paths=["/proc/x"], readonly_paths=["/proc/y"])
    config.linux.resources.oom_score_adj = 500
    config.image.image = "sha256:aa"
    config.image.user_specified_image = "busybox"
    made = specs.build(plan(tmp_path, config, pod(linux=cri.LinuxPodSandboxConfig(cgroup_parent="/kubepods/a"))))
    assert made["process"]["cwd"] == "/work"
    assert made["process"]["noNewPrivileges"] is True
    assert made["process"]["oomScoreAdj"] == 500
    assert "rlimits" not in made["process"]
    assert made["root"] == {"path": "rootfs", "readonly": True}
    assert made["linux"]["cgroupsPath"] == "/kubepods/a/id"
    assert (made["linux"]["maskedPaths"], made["linux"]["readonlyPaths"]) == (["/proc/x"], ["/proc/y"])
    assert made["annotations"]["io.kubernetes.cri.image-name"] == "busybox"
    assert "seccomp" not in made["linux"]


def test_containers_without_security_context_have_no_masked_paths(tmp_path: Path) -> None:
    assert specs.build(plan(tmp_path))["linux"]["maskedPaths"] == []
    kept = replace(plan(tmp_path), settings=RuntimeConfig(disable_proc_mount=True))
    assert specs.build(kept)["linux"]["maskedPaths"] == list(MASKED)


def test_only_privileged_pods_have_privileged_containers(tmp_path: Path) -> None:
    config = secured(privileged=True)
    with pytest.raises(Unknown, match="no privileged container allowed in sandbox"):
        specs.build(plan(tmp_path, config))
    privileged = pod()
    privileged.config.linux.security_context.privileged = True
    made = specs.build(plan(tmp_path, config, privileged))
    sys = next(each for each in made["mounts"] if each["destination"] == "/sys")
    assert "ro" not in sys["options"]
    assert made["linux"]["resources"]["devices"][0] == {"allow": True, "access": "rwm"}
    assert made["linux"]["devices"]
    bare = replace(plan(tmp_path, config, privileged), runtime=Runtime(privileged_without_host_devices=True))
    assert "devices" not in specs.build(bare)["linux"]


def test_oom_score_is_not_below_the_daemons_where_restricted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "score"
    own.write_text("-300\n")
    monkeypatch.setattr(specs, "OWN_SCORE", own)
    config = cri.ContainerConfig()
    config.linux.resources.oom_score_adj = -997
    assert specs.oom_score_adj(config, restrict=True) == -300
    assert specs.oom_score_adj(config, restrict=False) == -997


def test_a_clients_annotations_do_not_replace_our_own(tmp_path: Path) -> None:
    key = "io.kubernetes.cri.sandbox-id"
    config = cri.ContainerConfig(annotations={key: "forged", "a.b/c": "d", "other": "e"})
    made = specs.build(
        replace(plan(tmp_path, config), runtime=Runtime(container_annotations=("a.b/*", "io.kubernetes.*")))
    )
    assert made["annotations"][key] == "podid"
    assert made["annotations"]["a.b/c"] == "d"
    assert "other" not in made["annotations"]


def test_cgroup_parents() -> None:
    assert cgroups_path("", "id", "/k8s.io/id") == "/k8s.io/id"
    assert cgroups_path("/kubepods/burstable/", "id", "") == "/kubepods/burstable/id"
    assert cgroups_path("/kubepods.slice/kubepods-a.slice", "id", "") == "kubepods-a.slice:cri-containerd:id"


def test_resources_that_are_zero_are_not_set() -> None:
    assert resources(cri.LinuxContainerResources(), HOST) == {}


def test_swap_is_the_memorys_limit_where_linux_counts_it() -> None:
    wanted = cri.LinuxContainerResources(memory_limit_in_bytes=64 << 20)
    assert resources(wanted, HOST)["memory"] == {"limit": 64 << 20, "swap": 64 << 20}
    assert resources(wanted, Host(swap=False, huge_pages=False))["memory"] == {"limit": 64 << 20}
    wanted.memory_swap_limit_in_bytes = 65 << 20
    assert resources(wanted, HOST)["memory"] == {"limit": 64 << 20, "swap": 65 << 20}


def test_resources_are_shown_as_they_were_set_and_changed() -> None:
    spec = default_spec("k8s.io", "id")
    first = cri.LinuxContainerResources(cpu_shares=2, cpu_period=1000, unified={"memory.high": "5"})
    set_resources(spec, first, HOST, huge_pages=True)
    second = cri.LinuxContainerResources(cpu_shares=10, cpuset_cpus="0", unified={"memory.low": "4"})
    second.hugepage_limits.add(page_size="2MB", limit=4 << 20)
    set_resources(spec, second, HOST, huge_pages=True)
    shown = resources_of(spec)
    assert (shown.cpu_shares, shown.cpu_period, shown.cpuset_cpus) == (10, 1000, "0")
    assert dict(shown.unified) == {"memory.high": "5", "memory.low": "4"}
    assert [(each.page_size, each.limit) for each in shown.hugepage_limits] == [("2MB", 4 << 20)]
    assert len(spec["linux"]["resources"]["devices"]) > 1


def test_huge_pages_by_what_the_daemon_is_to_do() -> None:
    spec = default_spec("k8s.io", "id")
    wanted = cri.LinuxContainerResources(hugepage_limits=[cri.HugepageLimit(page_size="2MB", limit=1)])
    set_resources(spec, wanted, HOST, huge_pages=False)
    assert "hugepageLimits" not in spec["linux"]["resources"]
    bare = Host(swap=False, huge_pages=False)
    with pytest.raises(Unknown, match="hugetlb cgroup controller is missing"):
        set_resources(spec, wanted, bare, huge_pages=True)
    assert not specs.limits_huge_pages(RuntimeConfig(), HOST)
    enabled = RuntimeConfig(disable_hugetlb_controller=False)
    assert specs.limits_huge_pages(enabled, HOST)
    assert not specs.limits_huge_pages(enabled, bare)
    assert specs.limits_huge_pages(replace(enabled, tolerate_missing_hugetlb_controller=False), bare)


ACCOUNTS = Accounts(
    "root:x:0:0::/:\nbob:x:1234:777::/:\n",
    "root:x:0:\nwheel:x:10:root,bob\nstaff:x:4321:bob\nbobs:x:777:\n",
)


@pytest.mark.parametrize(
    ("name", "fields", "uid", "gid", "groups"),
    [
        ("root", {}, 0, 0, [0, 10]),
        ("bob", {}, 1234, 777, [10, 777, 4321]),
        ("1234", {}, 1234, 777, [10, 777, 4321]),
        ("5555", {}, 5555, 0, [0]),
        ("1234:99", {"supplemental_groups": [5, 6, 5]}, 1234, 99, [5, 6, 10, 99, 4321]),
        (
            "bob",
            {"supplemental_groups": [5], "supplemental_groups_policy": cri.SupplementalGroupsPolicy.Strict},
            1234,
            777,
            [5, 777],
        ),
    ],
)
def test_users_and_groups(name: str, fields: dict[str, object], uid: int, gid: int, groups: list[int]) -> None:
    security = cri.LinuxContainerSecurityContext(**fields)  # type: ignore[arg-type] # fields by their names
    assert with_groups(name, ACCOUNTS, security) == {"uid": uid, "gid": gid, "additionalGids": groups}


def test_who_the_client_wants() -> None:
    security = cri.LinuxContainerSecurityContext()
    assert name_of(security) == ""
    security.run_as_user.value = 0
    assert name_of(security) == "0"
    security.run_as_group.value = 99
    assert name_of(security) == "0:99"
    security.run_as_username = "bob"
    assert name_of(security) == "bob:99"
    with pytest.raises(Unknown, match='user group "99" is specified without user'):
        name_of(cri.LinuxContainerSecurityContext(run_as_group=cri.Int64Value(value=99)))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("9", 9),
        ("SIGRTMIN+3", 37),
        ("RTMAX-2", 62),
        ("nonsense", 15),
        ("SIGRTMIN+99", 15),
    ],
)
def test_signals_by_name(name: str, number: int) -> None:
    assert signals.number(name) == number


def test_each_signal_of_cri_is_one_of_linux() -> None:
    for name, value in cri.Signal.items():
        if value != cri.SIGNAL_RUNTIME_DEFAULT:
            linux = signals.name_of(value)
            assert signals.of_name(linux) == value, name
            if linux != "SIGTERM":
                assert signals.number(linux) != 15, name


def test_an_unknown_stop_signal_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="unknown CRI stop signal 999"):
        signals.check(999)  # type: ignore[arg-type] # what a client may send
    assert signals.of_name("15") == cri.SIGNAL_SIGTERM


def test_a_log_is_below_the_pods_directory() -> None:
    assert log_path("/var/log/pods/a", "c/0.log") == "/var/log/pods/a/c/0.log"
    assert log_path("/var/log/pods/a", "/c/0.log") == "/var/log/pods/a/c/0.log"
    assert log_path("", "c/0.log") == ""
    assert log_path("/var/log", "") == ""
    for path in ("../b/0.log", "c/../../0.log", "..", "."):
        with pytest.raises(Unknown, match="not below the log_directory"):
            log_path("/var/log/pods/a", path)
    with pytest.raises(Unknown, match="not absolute"):
        log_path("logs", "c")
