"""What an OCI runtime keeps of containers: whose it is, what is half-made, and what `windlass fsck` finds."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from windlass_shim_runc import check
from windlass_shim_runc.check import RuncCheck, running
from windlass_shim_runc.kept import TASK_DIRECTORY, default_root, is_anothers, read, sweep

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="OCI runtimes need Linux")


def start_of(pid: int) -> str:
    """Return when a process began, as proc(5) has it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


@pytest.mark.parametrize(
    ("file", "state", "is_another"),
    [
        ("state.json", {"config": {"labels": ["a=b", "bundle=/other"]}}, True),
        ("state.json", {"config": {"labels": ["bundle={bundle}"]}}, False),
        ("status", {"bundle": "/other"}, True),
        ("status", {"bundle": "{bundle}"}, False),
        ("state.json", {"config": {}}, False),
        ("state.json", {"config": {"labels": 7}}, False),
        ("state.json", [], False),
        ("none", {}, False),
    ],
)
def test_the_bundle_says_whose_a_container_is(tmp_path: Path, file: str, state: object, is_another: bool) -> None:
    """In the files of runc and of crun; what cannot be read is taken for ours, whose bundle names it."""
    bundle = tmp_path / "bundle"
    (tmp_path / file).write_text(json.dumps(state).replace("{bundle}", str(bundle)))
    assert is_anothers(str(tmp_path), str(bundle)) is is_another


def test_a_link_to_the_bundle_is_the_bundle(tmp_path: Path) -> None:
    """A state directory may be reached by two paths."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "status").write_text(json.dumps({"bundle": str(tmp_path / "real")}))
    assert not is_anothers(str(tmp_path), str(tmp_path / "link"))


def test_only_what_is_half_made_is_swept(tmp_path: Path) -> None:
    """A container that the runtime knows is the runtime's to delete."""
    directory = tmp_path / "box"
    assert sweep(str(directory)) == ""
    directory.mkdir()
    (directory / "state.json").touch()
    assert sweep(str(directory)) == f"the OCI runtime still has {directory}"
    (directory / "state.json").rename(directory / "runc.AbCdEf")
    assert sweep(str(directory)) == ""
    assert not directory.exists()


def test_what_cannot_be_swept_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "box"
    (directory / "below").mkdir(parents=True)
    assert sweep(str(directory)) == f"cannot remove {directory}/below: Is a directory"


def test_a_file_that_cannot_be_read_is_empty(tmp_path: Path) -> None:
    assert read(str(tmp_path / "none")) == read(str(tmp_path)) == b""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A daemon's state directory, and a runc that notes its calls and deletes what it is asked to."""
    program = tmp_path / "runc"
    program.write_text(
        '#!/bin/sh\necho "$@" >>"$0.calls"\n[ -e "$0.fails" ] && exit 1\nrm -rf "$2/$5"\n',
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(check, "PROGRAM", str(program))
    state = tmp_path / "state"
    (state / "runc" / "ns").mkdir(parents=True)
    (state / TASK_DIRECTORY / "ns").mkdir(parents=True)
    return state


def keep(state: Path, id: str, bundle: bool = False, pid: int = 0) -> Path:
    """Make what runc keeps of a container."""
    directory = state / "runc" / "ns" / id
    directory.mkdir()
    began = start_of(pid) if pid else "1"
    text = json.dumps({"init_process_pid": pid or 4194303, "init_process_start": began})
    (directory / "state.json").write_text(text)
    if bundle:
        (state / TASK_DIRECTORY / "ns" / id).mkdir()
    return directory


def test_a_container_without_a_bundle_is_found(state: Path) -> None:
    """One that has a bundle is the task manager's."""
    keep(state, "known", bundle=True)
    directory = keep(state, "stray")
    (problem,) = RuncCheck(state).check()
    assert problem.object == f"container ns/stray that runc keeps in {directory}"
    assert not problem.repaired and directory.exists()


def test_a_repair_has_it_removed(state: Path) -> None:
    directory = keep(state, "stray")
    (problem,) = RuncCheck(state).check(repair=True)
    assert problem.repaired and not directory.exists()
    calls = Path(f"{check.PROGRAM}.calls").read_text()
    assert calls == f"--root {directory.parent} delete --force stray\n"
    assert RuncCheck(state).check() == []


def test_what_runc_cannot_remove_is_a_problem_still(state: Path) -> None:
    keep(state, "stray")
    Path(f"{check.PROGRAM}.fails").touch()
    (problem,) = RuncCheck(state).check(repair=True)
    assert not problem.repaired and "the OCI runtime still has" in problem.remedy


def test_a_container_that_runs_is_left_to_the_operator(state: Path) -> None:
    """With the command that ends it."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            directory = keep(state, "stray", pid=process.pid)
            (problem,) = RuncCheck(state).check(repair=True)
            assert f"runs as process {process.pid}" in problem.state
            assert problem.remedy == f"end it: {check.PROGRAM} --root {directory.parent} delete --force stray"
            assert directory.exists()
        finally:
            process.kill()


def test_a_number_that_is_another_processes_now_is_no_container(tmp_path: Path) -> None:
    """Its start is not the one that runc has written down."""
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"init_process_pid": os.getpid(), "init_process_start": start_of(os.getpid())}))
    assert running(state) == (os.getpid(), False)
    for text in (
        json.dumps({"init_process_pid": os.getpid(), "init_process_start": 1}),
        json.dumps({"init_process_pid": "x", "init_process_start": 1}),
        "[]",
        "{}",
        "not JSON",
        "[" * 100000,
    ):
        state.write_text(text)
        assert running(state)[0] == 0
    assert running(tmp_path / "none") == (0, False)


@pytest.mark.parametrize("bundle", ["/run/io.containerd.runtime.v2.task/id", "", "/", "relative/ns/id"])
def test_a_bundle_in_no_daemons_state_has_containerds_root(bundle: str) -> None:
    assert default_root(bundle) == "/run/containerd/runc"
