"""`windlass plugins new`: each kind of package installs and loads; `tests/compat` runs the suites on them."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from windlass.errors import AlreadyExists, InvalidArgument
from windlass_client import cli
from windlass_client.scaffold.kinds import KINDS, Kind, kind_of
from windlass_client.scaffold.write import write
from windlass_conformance import plugin as conformance

NAMES = [kind.name for kind in KINDS]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_it_installs_and_is_found(kind: Kind, tmp_path: Path) -> None:
    """Its wheel has the entry point, and the declaration loads with nothing but the kernel imported."""
    made = write(kind, "my-own", tmp_path)
    command = [sys.executable, "-m", "flit_core.wheel", "--outdir", str(tmp_path), str(made)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    program = (
        "import sys\nfrom windlass.discovery import discover\n"
        f"found = [each for each in discover() if each.uri == {f'{kind.uri}.my-own'!r}]\n"
        "assert len(found) == 1 and found[0].plugin is not None, found\n"
        "assert found[0].plugin.uri == found[0].uri\n"
        "assert 'my_own.implementation' not in sys.modules\n"
    )
    env = environment(tmp_path / "site") | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr


def test_what_is_generated_is_as_we_write(tmp_path: Path) -> None:
    """The formatter and the linter that we use find nothing to change."""
    for kind in KINDS:
        write(kind, f"my-{kind.name}", tmp_path)
    for action in (
        ["check", "--select", "E,F,UP,B", "--line-length", "120"],
        ["format", "--check", "--line-length", "120"],
    ):
        command = [sys.executable, "-m", "ruff", *action, "--isolated", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_suite_has_a_kind() -> None:
    """An author of any contract that has a suite can begin with a package that passes it."""
    assert {*conformance.KINDS, "mount-handler"} <= set(NAMES)


def test_dependencies_are_complete(tmp_path: Path) -> None:
    """What a package imports of ours it declares."""
    for kind in KINDS:
        made = write(kind, f"my-{kind.name}", tmp_path)
        project = tomllib.loads((made / "pyproject.toml").read_text())["project"]
        declared = " ".join([*project["dependencies"], *project["optional-dependencies"]["test"]])
        used = {
            line.split()[1].partition(".")[0].replace("_", "-")
            for file in made.rglob("*.py")
            for line in map(str.strip, file.read_text().splitlines())
            if line.startswith("from windlass_")
        }
        assert not [name for name in used if name not in declared], made


@pytest.mark.parametrize("name", ["", "Upper", "../x", "a/b", "-a", "a--b", "json", "pytest", "class", "x" * 50])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    """A name becomes a module, a distribution and an ID; nothing is left of one that cannot."""
    with pytest.raises(InvalidArgument):
        write(KINDS[0], name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(tmp_path: Path) -> None:
    """A second package of one name is refused."""
    write(KINDS[0], "mine", tmp_path)
    with pytest.raises(AlreadyExists, match="choose another name"):
        write(KINDS[1], "mine", tmp_path)


def test_unknown_kinds_are_refused() -> None:
    """With a suggestion."""
    assert kind_of("io.containerd.differ.v1").name == "differ"
    with pytest.raises(InvalidArgument, match="did you mean snapshotter"):
        kind_of("snapshoter")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what to do next."""
    assert cli.main(["plugins", "new", "hook", "mine", "--directory", str(tmp_path)]) == 0
    assert "windlass plugins check" in capsys.readouterr().out
    assert cli.main(["plugins", "new", "hook", "mine", "--directory", str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err
