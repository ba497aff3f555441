"""Which runtime a pod gets, what its shim is given, and what the kubelet learns of it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import cast

import pytest

from windlass.contracts.tasks import Tasks
from windlass.contracts.values import Payload
from windlass.errors import InvalidArgument, Unimplemented, Unknown
from windlass_api.containerd.runc.v1.options_pb2 import Options
from windlass_api.containerd.types.introspection_pb2 import RuntimeInfo
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import Containerd, Runtime
from windlass_cri.pods.handlers import Handlers, features_of, handler_of, kernel_version, options_of

UNTRUSTED = {"io.kubernetes.cri.untrusted-workload": "true"}


def tasks(features: object) -> Tasks:
    """A runtime that says this of itself."""

    async def describe(runtime: str, options: Payload | None) -> Payload:
        info = RuntimeInfo()
        info.features.value = json.dumps(features).encode()
        return Payload("containerd.types.RuntimeInfo", info.SerializeToString())

    return cast(Tasks, SimpleNamespace(describe=describe))  # the one method that is called


def test_a_handler_is_the_default_unless_it_is_named() -> None:
    handlers = Handlers(Containerd("b", {"a": Runtime("a.v1"), "b": Runtime("b.v1")}))
    assert handlers.get("").runtime_type == "b.v1" and handlers.get("a").runtime_type == "a.v1"
    assert handlers.in_order() == ["b", "a", "runc"]
    with pytest.raises(Unknown, match='no runtime for "c" is configured; there are a, b, runc'):
        handlers.get("c")


@pytest.mark.parametrize("wanted", ["", "untrusted"])
def test_an_untrusted_workload_has_the_handler_of_that_name(wanted: str) -> None:
    assert handler_of(cri.PodSandboxConfig(annotations=UNTRUSTED), wanted) == "untrusted"


@pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
def test_an_untrusted_workload_has_nothing_of_the_host(kind: str) -> None:
    config = cri.PodSandboxConfig(annotations=UNTRUSTED)
    setattr(config.linux.security_context.namespace_options, kind, cri.NODE)
    with pytest.raises(Unknown, match="host access is not allowed"):
        handler_of(config, "")


def test_a_workload_is_trusted_otherwise() -> None:
    config = cri.PodSandboxConfig(annotations={"io.kubernetes.cri.untrusted-workload": "True"})
    assert handler_of(config, "kata") == "kata"


def test_our_own_runtime_has_them_too() -> None:
    """Without them its containers would be in other control groups than the kubelet has made."""
    made = options_of(Runtime("io.windlass.v1", options={"SystemdCgroup": True}))
    assert made is not None
    assert Options.FromString(made.value).systemd_cgroup


def test_options_are_those_of_runc() -> None:
    given = Runtime(options={"BinaryName": "/usr/bin/crun", "SystemdCgroup": True, "IoUid": 5, "Unheard": 1})
    made = options_of(given)
    assert made is not None and made.type_url == "containerd.runc.v1.Options"
    assert Options.FromString(made.value) == Options(binary_name="/usr/bin/crun", systemd_cgroup=True, io_uid=5)
    assert options_of(Runtime()) is None
    assert options_of(Runtime("io.containerd.kata.v2", options={"ConfigPath": "/x"})) is None
    with pytest.raises(InvalidArgument, match=r"options of runtime io\.containerd\.runc\.v2"):
        options_of(Runtime(options={"SystemdCgroup": "perhaps"}))


@pytest.mark.parametrize(("options", "driver"), [({}, cri.CGROUPFS), ({"SystemdCgroup": True}, cri.SYSTEMD)])
def test_the_cgroup_driver_is_the_default_handlers(
    options: dict[str, object], driver: cri.CgroupDriver.ValueType
) -> None:
    runtimes = {"a": Runtime(), "z": Runtime(options=options), "k": Runtime("io.containerd.kata.v2")}
    assert Handlers(Containerd("k", {"k": runtimes["k"]})).sandboxers() == {"windlass"}
    assert Handlers(Containerd("z", runtimes)).cgroup_driver() == driver
    assert Handlers(Containerd("k", runtimes)).cgroup_driver() == cri.CGROUPFS


async def test_features_are_what_the_runtime_says() -> None:
    linux = {"namespaces": ["user"], "mountExtensions": {"idmap": {"enabled": True}}}
    found = await features_of(tasks({"mountOptions": ["ro", "rro"], "linux": linux}), Runtime())
    assert found.recursive_read_only_mounts and found.user_namespaces
    found = await features_of(tasks({"mountOptions": ["ro"], "linux": {"namespaces": ["user"]}}), Runtime())
    assert found == cri.RuntimeHandlerFeatures()


@pytest.mark.parametrize("said", [[], {}, "rro", {"linux": None, "mountOptions": None}])
async def test_a_runtime_that_says_nothing_is_able_to_do_nothing(said: object) -> None:
    assert await features_of(tasks(said), Runtime()) == cri.RuntimeHandlerFeatures()


async def test_a_runtime_that_cannot_be_asked_is_able_to_do_nothing() -> None:
    async def describe(runtime: str, options: Payload | None) -> Payload:
        raise Unimplemented("no -info")

    made = cast(Tasks, SimpleNamespace(describe=describe))  # the one method that is called
    assert await features_of(made, Runtime()) == cri.RuntimeHandlerFeatures()


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.1.0-13-amd64", (6, 1)), ("5.12", (5, 12)), ("6.18.44-x", (6, 18)), ("odd", (0, 0)), ("5.x", (0, 0))],
)
def test_kernel_versions(release: str, version: tuple[int, int]) -> None:
    assert kernel_version(release) == version
