"""Specifications that are wrong in one field: each is refused in one line that names the field.

The fields come from the table of shapes, so a new one is tried as soon as it is known.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oci_runtime.bundles import Runtime, Spec, spec

from windlass.errors import Error
from windlass_oci_runtime import shapes
from windlass_oci_runtime.creation import Creation
from windlass_oci_runtime.report import Failure, reason

# Any: JSON, and shapes of it.
Place = tuple[Any, ...]

VALUES: dict[type, list[object]] = {
    bool: [True],
    int: [0, -1, 1, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 1 << 200, 1.5],
    str: ["", "x", "a\0b", "\ud800", "x" * 5000, "../..", "/", "1:2:3"],
    list: [[], [None], [[]]],
    dict: [{}, {"x": None}, {"x": {}}],
    tuple: [{}, {"x": None}, {"x": {}}, {"": "y"}],
}
WRONG: dict[type, object] = {str: 5, int: "five", bool: "yes", list: {}, dict: [], tuple: []}


def fields(shape: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yield the place and the shape of every field; a number is the index of a list."""
    if place:
        yield place, shape
    if isinstance(shape, dict):
        for name, inner in shape.items():
            yield from fields(inner, (*place, name))
    elif isinstance(shape, tuple):
        yield from fields(shape[0], (*place, "x"))
    elif isinstance(shape, list):
        yield from fields(shape[0], (*place, 0))


FIELDS = list(fields(shapes.SPEC))


def named(place: Place) -> str:
    """Return how an error names a field."""
    text = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in place)
    for free in ("timeOffsets", "rdma", "unified", "sysctl", "annotations", "netDevices"):
        text = text.replace(f"{free}.x", f"{free}['x']")
    return text[1:]


def put(document: Spec, place: Place, value: object) -> Spec:
    """Return a copy with a field, and with what is above it."""
    whole: Any = json.loads(json.dumps(document))
    here = whole
    for each, following in itertools.pairwise(place):
        empty: Any = [] if isinstance(following, int) else {}
        if isinstance(here, dict):
            here = here.setdefault(each, empty)
        else:
            if not here:
                here.append(empty)
            here = here[each]
    if isinstance(here, dict):
        here[place[-1]] = value
    else:
        here[:1] = [value]
    return whole  # type: ignore[no-any-return] # JSON


def kind_of(shape: Any) -> type:
    return shape if isinstance(shape, type) else type(shape)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundle")
    (directory / "rootfs").mkdir()
    return directory


def refusal(directory: Path, document: Spec) -> str:
    """Plan a container, and return why that is refused, "" when it is not; anything but an error of ours fails."""
    (directory / "config.json").write_text(json.dumps(document))
    try:
        creation = Creation(str(directory / "state"), "box", str(directory))
    except Error as error:
        state = directory / "state"
        assert not state.exists() or [each for each in os.listdir(state) if not each.startswith(".")] == []
        return str(error)
    creation.undo()
    return ""


@pytest.mark.parametrize(("place", "shape"), FIELDS, ids=[named(place) for place, _ in FIELDS])
def test_a_field_of_a_wrong_type_is_named(directory: Path, place: Place, shape: Any) -> None:
    error = refusal(directory, put(spec("true"), place, WRONG[kind_of(shape)]))
    assert error.startswith(f"{directory}/config.json: {named(place)} must be "), error
    assert "\n" not in error


@pytest.mark.parametrize(("place", "shape"), FIELDS, ids=[named(place) for place, _ in FIELDS])
def test_any_value_of_a_field_is_taken_or_refused_in_one_line(directory: Path, place: Place, shape: Any) -> None:
    """Nothing else comes out of it, such as an error of Python, which would end a shim."""
    # Of the two the outer: a value that is good by itself may need others next to it.
    name = [each for each in place[:2] if isinstance(each, str) and each != "x"][-1]
    for value in VALUES[kind_of(shape)]:
        if error := refusal(directory, put(spec("true"), place, value)):
            assert "\n" not in error and len(error) < 600, (value, error)
            assert name in error, (value, error)


@pytest.mark.parametrize("place", [place for place, _ in FIELDS if not isinstance(place[-1], int) and place[-1] != "x"])
def test_null_is_a_field_that_is_missing(directory: Path, place: Place) -> None:
    with_null = refusal(directory, put(spec("true"), place, None))
    document: Any = put(spec("true"), place, 0)
    here = document
    for each in place[:-1]:
        here = here[each]
    del here[place[-1]]
    assert with_null == refusal(directory, document)


RESOURCES: list[tuple[dict[str, Any], str]] = [
    ({"memory": {"limit": 4096}}, "memory.limit"),
    ({"memory": {"swappiness": 101}}, "memory.swappiness"),
    ({"cpu": {"cpus": "999"}}, "cpu.cpus"),
    ({"cpu": {"mems": "x"}}, "cpu.mems"),
    ({"cpu": {"period": 1}}, "cpu.period"),
    ({"cpu": {"quota": 1}}, "cpu.quota"),
    ({"cpu": {"shares": 1 << 40}}, "cpu.shares"),
    ({"pids": {"limit": 1 << 62}}, "pids.limit"),
    ({"hugepageLimits": [{"pageSize": "3KB", "limit": 1}]}, "hugepageLimits"),
    ({"unified": {"nothing.max": "1"}}, "unified"),
    ({"blockIO": {"weight": 5000}}, "blockIO"),
    ({"devices": [{"allow": True, "type": "z"}]}, "devices"),
]
LATE: list[tuple[Place, Any, str]] = [
    (("hostname",), "x" * 100, "hostname"),
    (("linux", "sysctl"), {"net.nothing": "1"}, "linux.sysctl net.nothing"),
    (("linux", "rootfsPropagation"), "bogus", "linux.rootfsPropagation"),
    (("linux", "maskedPaths"), ["/loop"], "linux.maskedPaths: /loop"),
    (("linux", "readonlyPaths"), ["/loop"], "linux.readonlyPaths: /loop"),
    (("linux", "devices"), [{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}], "linux.devices: device '/dev/x'"),
    (("process", "oomScoreAdj"), 2000, "process.oomScoreAdj"),
    (("process", "rlimits"), [{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40}], "RLIMIT_NOFILE"),
    (("root", "path"), "rootfs/etc/passwd", "rootfs/etc/passwd: not a directory"),
    (("root", "path"), "gone", "b/gone: no such file or directory"),
    (("linux", "cgroupsPath"), "/a\0b", "linux.cgroupsPath has a NUL byte"),
]


@pytest.mark.parametrize(("resources", "name"), RESOURCES, ids=[name for _, name in RESOURCES])
def test_a_limit_that_linux_refuses_is_named(runtime: Runtime, resources: dict[str, Any], name: str) -> None:
    """Whether this host has the controller or not; and no control group is left."""
    with pytest.raises((Error, OSError, Failure)) as caught:
        runtime.create(spec("true", resources=resources))
    assert f"linux.resources.{name}" in reason(caught.value)


@pytest.mark.parametrize(("place", "value", "words"), LATE, ids=[words for *_, words in LATE])
def test_what_only_linux_can_refuse_is_named(runtime: Runtime, place: Place, value: Any, words: str) -> None:
    (runtime.rootfs / "loop").symlink_to("loop")
    with pytest.raises((Error, OSError, Failure)) as caught:
        runtime.create(put(spec("true"), place, value))
    assert words in reason(caught.value)


def test_a_file_that_is_no_namespace_is_named(runtime: Runtime) -> None:
    document = spec("true", namespaces=[{"type": "mount"}, {"type": "network", "path": "/proc/self/ns/uts"}])
    with pytest.raises(Failure, match=r"cannot join the network namespace of linux\.namespaces: invalid argument"):
        runtime.create(document)


@pytest.mark.parametrize(
    "change",
    [
        {"ociVersion": "1.99.0"},
        {"ociVersion": "1."},
        {"later": {"a": 1}, "hooks": {"later": [{"path": "/x"}]}},
        dict.fromkeys(("hostname", "hooks", "annotations", "mounts")),
        {"mounts": [{"destination": "tmp", "type": "tmpfs", "source": "tmpfs"}]},
    ],
)
def test_what_runc_takes_is_taken(runtime: Runtime, change: dict[str, Any]) -> None:
    """A later version, fields of it, null for what is missing, and a destination that is not absolute."""
    assert runtime.run({**spec("true"), **change}) == (0, "")
