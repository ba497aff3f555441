"""A stopped container is forgotten without runc only when all of it is what it usually is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windlass_shim_runc.forgetting import cgroups, forget, may_be_hooked


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "cgroup" / name / "box" for name in ("cpu", "memory", "unified")]
    for place in made:
        place.mkdir(parents=True)
    return made


@pytest.fixture
def state(places: list[Path]) -> dict[str, object]:
    paths = {"": str(places[2]), "cpu": str(places[0]), "cpuacct": str(places[0]), "memory": str(places[1])}
    labels = ['x="cgroup_paths":{"cpu":"/somewhere"}']
    config = {"Hooks": {"poststart": None, "poststop": None}, "labels": labels}
    return {"id": "box", "config": config, "cgroup_paths": paths, "intel_rdt_path": ""}


def write(root: Path, state: dict[str, object], *others: str) -> Path:
    directory = root / "box"
    directory.mkdir()
    (directory / "state.json").write_text(json.dumps(state, separators=(",", ":")))
    for other in others:
        (directory / other).touch()
    return directory


def test_cgroups_and_state_are_removed(tmp_path: Path, places: list[Path], state: dict[str, object]) -> None:
    """And nothing above them: that is the client's."""
    directory = write(tmp_path, state, "exec.fifo")
    assert forget(str(tmp_path), "box")
    assert not directory.exists() and not any(place.exists() for place in places)
    assert all(place.parent.is_dir() for place in places)


def test_a_cgroup_that_is_gone_already_is_none_to_remove(
    tmp_path: Path, places: list[Path], state: dict[str, object]
) -> None:
    directory = write(tmp_path, state)
    places[1].rmdir()
    assert forget(str(tmp_path), "box")
    assert not directory.exists()


def test_a_cgroup_in_use_is_left_to_runc(tmp_path: Path, places: list[Path], state: dict[str, object]) -> None:
    """Which waits for it, or removes what is below; its state must still be there for that."""
    directory = write(tmp_path, state)
    (places[1] / "below").mkdir()
    assert not forget(str(tmp_path), "box")
    assert (directory / "state.json").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"intel_rdt_path": "/sys/fs/resctrl/box"},
        {"cgroup_paths": {}},
        {"cgroup_paths": None},
        {"config": {"Hooks": {"poststop": [{"path": "/bin/true"}]}}},
    ],
)
def test_a_state_that_says_more_is_left_to_runc(
    tmp_path: Path, state: dict[str, object], places: list[Path], change: dict[str, object]
) -> None:
    directory = write(tmp_path, {**state, **change})
    assert not forget(str(tmp_path), "box")
    assert directory.exists() and all(place.exists() for place in places)


def test_files_that_nobody_knows_are_left_to_runc(tmp_path: Path, state: dict[str, object]) -> None:
    directory = write(tmp_path, state, "surprise")
    assert not forget(str(tmp_path), "box")
    assert sorted(path.name for path in directory.iterdir()) == ["state.json", "surprise"]


def test_what_runc_does_not_know_is_not_ours_either(tmp_path: Path) -> None:
    assert not forget(str(tmp_path), "nobody")


def test_names_with_escapes_are_not_guessed() -> None:
    assert cgroups(rb'{"cgroup_paths":{"cpu":"/sys/fs/cgroup/cpu/a\"b"}}') == []
    assert cgroups(b'{"cgroup_paths":{"cpu":"/a","memory":"/b c"}}') == ["/a", "/b c"]
    assert cgroups(b"{}") == cgroups(b"garbage") == []


@pytest.mark.parametrize("name", ["poststop", "Poststop", r"post\u0073top", r"po\u017ftstop", "post\u017ftop"])
def test_hooks_are_seen_however_they_are_spelt(name: str) -> None:
    """Go, and so runc, takes names in any case, escaped or not."""
    assert may_be_hooked(('{"hooks":{"' + name + '":[]}}').encode())
    assert not may_be_hooked(b'{"process":{"args":["sh","-c","a \\u0026\\u0026 b"]}}')
