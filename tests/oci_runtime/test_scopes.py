"""Names, places and properties of the scopes that systemd makes for containers."""

from __future__ import annotations

import os

import pytest
from oci_runtime.bundles import Runtime, Spec, spec

from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_oci_runtime import scope_properties
from windlass_oci_runtime.creation import Creation
from windlass_oci_runtime.scope import Scope, expanded, hold, release


@pytest.mark.parametrize(
    ("path", "slice", "name"),
    [
        ("", "system.slice", "windlass-box.scope"),
        ("::box", "system.slice", "-box.scope"),
        ("user.slice:docker:x", "user.slice", "docker-x.scope"),
        (
            "kubepods-besteffort-pod1_2.slice:cri-containerd:x",
            "kubepods-besteffort-pod1_2.slice",
            "cri-containerd-x.scope",
        ),
    ],
)
def test_a_path_is_slice_prefix_and_name(path: str, slice: str, name: str) -> None:
    found = Scope(path, "box")
    assert (found.slice, found.name) == (slice, name)
    assert {place.partition("/sys/fs/cgroup/")[0] for place in found.places()} == {""}
    assert all(place.endswith(f"{expanded(slice)}/{name}") for place in found.places())


@pytest.mark.parametrize(
    "path",
    [
        "/a/b",
        "a:b",
        "a:b:c:d",
        "a.slice:b:",
        "a:b:c",
        "a--b.slice:c:d",
        "a/b.slice:c:d",
        "a.slice:b:c/../d",
        "a.slice:b:c.slice",
    ],
)
def test_another_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidArgument, match=r"cgroupsPath"):
        Scope(path, "box")


def test_a_slice_is_below_those_that_its_name_begins_with() -> None:
    assert expanded("a-b-c.slice") == "a.slice/a-b.slice/a-b-c.slice"
    assert expanded("-.slice") == ""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("true", ("b", True)),
        ("'inactive'", ("s", "inactive")),
        ('"x"', ("s", "x")),
        ("5", ("i", 5)),
        ("uint64 5", ("t", 5)),
        ("0.5", ("d", 0.5)),
        ("['a', 'b']", ("as", ["a", "b"])),
    ],
)
def test_annotations_are_values_of_d_bus(text: str, wanted: object) -> None:
    assert dict(scope_properties.of_annotations({"org.systemd.property.Name": text})) == {"Name": wanted}


@pytest.mark.parametrize("text", ["", "word", "[]", "['a', 1]", "uint64 x", "'a"])
def test_another_value_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a value of D-Bus"):
        list(scope_properties.of_annotations({"org.systemd.property.Name": text}))


def test_seconds_become_microseconds() -> None:
    found = scope_properties.of_annotations({"org.systemd.property.TimeoutStopSec": "1.5", "other": "x"})
    assert list(found) == [("TimeoutStopUSec", ("t", 1_500_000))]


def test_limits_of_version_2_are_systemds() -> None:
    resources = {
        "memory": {"limit": 100, "swap": 150, "reservation": 50},
        "cpu": {"shares": 1024, "quota": 12_345, "period": 50_000, "cpus": "0-2,9"},
        "pids": {"limit": -1},
    }
    assert dict(scope_properties.of_resources(resources, unified=True)) == {
        "MemoryMax": ("t", 100),
        "MemorySwapMax": ("t", 50),
        "MemoryLow": ("t", 50),
        "CPUWeight": ("t", 100),
        "CPUQuotaPeriodUSec": ("t", 50_000),
        "CPUQuotaPerSecUSec": ("t", 250_000),
        "AllowedCPUs": ("ay", b"\x07\x02"),
        "TasksMax": ("t", scope_properties.INFINITY),
    }


def test_all_devices_are_no_policy() -> None:
    found = dict(scope_properties.of_devices([{"allow": False}, {"allow": True}], {}))
    assert found == {"DevicePolicy": ("s", "auto"), "DeviceAllow": ("a(ss)", [])}


def test_a_rule_of_all_minor_numbers_names_the_driver() -> None:
    rules: list[Spec] = [{"allow": False}, {"allow": True, "type": "c", "major": 136, "access": "rw"}]
    _, (_, allowed) = list(scope_properties.of_devices(rules, {("char", 136): "pts"}))[1]
    assert isinstance(allowed, list)
    assert allowed[0] == ("char-pts", "rw")


def test_what_holds_a_scope_ends_when_it_is_released() -> None:
    if len(os.listdir("/proc/self/task")) > 1:
        pytest.skip("this process has threads, which a clone of it lacks; run tests/oci_runtime alone")
    pid = hold()
    with pytest.raises(FailedPrecondition, match=r"unit windlass-box\.scope was not given its process"):
        Scope("", "box").check_holds(pid)
    release(pid)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="systemd runs here")
def test_without_systemd_no_container_is_made(runtime: Runtime) -> None:
    creation = Creation(runtime.root, "box", runtime.bundle(spec("true", cgroupsPath="::box")), by_systemd=True)
    creation.hold()
    with pytest.raises(FailedPrecondition, match=r"cannot start unit -box\.scope: systemd does not run on this host; "):
        creation.enroll()
    with pytest.raises(FailedPrecondition, match="was not given its process"):
        creation.spawn({})
    creation.undo()
    assert os.listdir(runtime.root) == []


def test_a_scope_needs_systemd_cgroups(runtime: Runtime) -> None:
    with pytest.raises(InvalidArgument, match="is a scope of systemd; use --systemd-cgroup"):
        runtime.create(spec("true", cgroupsPath="a.slice:b:c"))
