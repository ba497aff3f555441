"""Control groups that a killed runtime leaves."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass_runtime_v2.cgroups import cgroup_of, hierarchies, remove_cgroups

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: control groups")


@pytest.fixture
def groups(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Path]]:
    """A group of one name in every hierarchy, and a bundle whose spec names it."""
    name = f"/windlass-test/left-{os.getpid()}"
    found = [Path(f"{hierarchy}{name}") for hierarchy in hierarchies()]
    if not found or not os.access(found[0].parent.parent, os.W_OK):
        pytest.skip("control groups are not mounted, or read-only")
    (tmp_path / "config.json").write_text(json.dumps({"linux": {"cgroupsPath": name}}))
    for group in found:
        group.mkdir(parents=True)
    yield found
    for group in found:
        if group.exists():
            group.rmdir()


def test_empty_groups_are_removed_everywhere(groups: list[Path], tmp_path: Path) -> None:
    """And those that are gone already are no matter."""
    groups[0].rmdir()
    remove_cgroups(tmp_path)
    assert not any(group.exists() for group in groups)
    remove_cgroups(tmp_path)


def test_a_process_that_is_just_ending_is_waited_for(groups: list[Path], tmp_path: Path) -> None:
    """It has lost its runtime, and will notice."""
    with subprocess.Popen(["sleep", "0.2"]) as process:
        (groups[0] / "cgroup.procs").write_text(str(process.pid))
        # A zombie is in no group, so this does not wait for whoever reaps it.
        remove_cgroups(tmp_path)
    assert not any(group.exists() for group in groups)


def test_a_group_in_use_is_left_alone(groups: list[Path], tmp_path: Path) -> None:
    """Who is in it is not to be harmed, and the wait for it is bounded."""
    with subprocess.Popen(["sleep", "100"]) as process:
        try:
            (groups[0] / "cgroup.procs").write_text(str(process.pid))
            remove_cgroups(tmp_path)
            assert process.poll() is None
        finally:
            process.kill()
    assert [group for group in groups if group.exists()] == [groups[0]]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ('{"linux": {"cgroupsPath": "/a/b"}}', "/a/b"),
        ('{"linux": {"cgroupsPath": "/../a/../b"}}', "/b"),
        ('{"linux": {"cgroupsPath": "//"}}', ""),
        ('{"linux": {"cgroupsPath": "a"}}', ""),
        ('{"linux": {"cgroupsPath": "system.slice:a:b"}}', ""),
        ('{"linux": {"cgroupsPath": 7}}', ""),
        ('{"linux": null}', ""),
        ("[", ""),
    ],
)
def test_only_an_absolute_path_is_ours_to_remove(tmp_path: Path, spec: str, path: str) -> None:
    """Others are relative to a group, or a manager, that we do not know."""
    (tmp_path / "config.json").write_text(spec)
    assert cgroup_of(tmp_path / "config.json") == path
    assert cgroup_of(tmp_path / "nothing") == ""
