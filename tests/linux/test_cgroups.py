"""Control groups that a killed runtime leaves."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass_linux.cgroups import groups_of, hierarchies, processes_in, remove_within

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: control groups")


PLACES = [place for place, _, _ in hierarchies()] if Path("/proc/self/mountinfo").exists() else []


@pytest.fixture
def groups() -> Iterator[list[str]]:
    """A group of one name in every hierarchy."""
    if not PLACES or not os.access(PLACES[0], os.W_OK):
        pytest.skip("control groups are not mounted, or read-only")
    name = f"windlass-test-{secrets.token_hex(4)}"
    found = [f"{place}/{name}" for place in PLACES]
    for group in found:
        Path(group).mkdir()
    yield found
    remove_within(found)


def test_empty_groups_are_removed_everywhere(groups: list[str]) -> None:
    """With those below them; and those that are gone already are no matter."""
    Path(groups[0]).rmdir()
    Path(groups[1], "a", "b").mkdir(parents=True)
    assert remove_within(groups) == []
    assert not any(Path(group).exists() for group in groups)
    assert remove_within(groups) == []


def test_a_process_that_is_just_ending_is_waited_for(groups: list[str]) -> None:
    """It has lost its runtime, and will notice."""
    with subprocess.Popen(["sleep", "0.2"]) as process:
        Path(groups[0], "cgroup.procs").write_text(str(process.pid))
        assert processes_in(groups[0]) == [process.pid]
        # A zombie is in no group, so this does not wait for whoever reaps it.
        assert remove_within(groups, 10) == []
    assert not any(Path(group).exists() for group in groups)


def test_a_group_in_use_is_left_alone(groups: list[str]) -> None:
    """Who is in it is not to be harmed, the wait for it is bounded, and it is named."""
    with subprocess.Popen(["sleep", "100"]) as process:
        try:
            Path(groups[0], "below").mkdir()
            Path(groups[0], "below", "cgroup.procs").write_text(str(process.pid))
            assert processes_in(groups[0]) == [process.pid]
            assert remove_within(groups, 0.1) == groups[:1]
            assert process.poll() is None
        finally:
            process.kill()
    assert [group for group in groups if Path(group).exists()] == groups[:1]


@pytest.mark.parametrize(
    ("path", "inner"),
    [
        ("/a/b", "/a/b"),
        ("/../a/../b", "/b"),
        ("//", None),
        ("system.slice:a:b", None),
        ("/a:b:c", "/a:b:c"),
        (7, None),
    ],
)
def test_an_absolute_path_is_below_the_top_of_each_hierarchy(path: object, inner: str | None) -> None:
    """The top itself is never meant, and names for systemd are left to it."""
    spec = json.dumps({"linux": {"cgroupsPath": path}}).encode()
    assert groups_of(spec, "box") == ([f"{place}{inner}" for place in PLACES] if inner else [])


@pytest.mark.parametrize(
    ("linux", "inner"), [({"cgroupsPath": "a/b"}, "a/b"), ({"cgroupsPath": "../a"}, "a"), ({}, "box"), (None, "box")]
)
def test_other_paths_are_below_the_group_of_the_runtime(linux: object, inner: str) -> None:
    """Without any path the container's ID is the name."""
    if [kind for _, kind, _ in hierarchies()] == ["cgroup2"]:
        pytest.skip("with version 2 alone they are beside it")
    spec = json.dumps({"linux": linux}).encode()
    assert groups_of(spec, "box") == [f"{own}/{inner}" for _, _, own in hierarchies()]


@pytest.mark.parametrize("spec", [b"[", b"[]", b'{"linux": 7}'])
def test_what_is_no_spec_names_no_group(spec: bytes) -> None:
    """It is the runtime's to refuse."""
    assert groups_of(spec, "box") == []
