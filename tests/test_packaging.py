"""Each distribution is one that a third party could have made: it builds alone and declares what it needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from house import TREE, Distribution, distributions, imports, where

ALL = distributions()
MODULES = {each.module: each.name for each in ALL}
DISTRIBUTIONS = {
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_tools": "grpcio-tools",
    "opentelemetry": "opentelemetry-sdk",
    "prometheus_client": "prometheus-client",
    "yaml": "pyyaml",
}
"""Where the distribution has another name than what is imported from it."""


def ids(each: Distribution) -> str:
    return each.folder.name


def needs(each: Distribution) -> set[str]:
    """Return the names of what a distribution declares that it needs, its extras included."""
    extras = [line for lines in each.project.get("optional-dependencies", {}).values() for line in lines]
    return {re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0].lower() for line in [*each.project["dependencies"], *extras]}


def imported(each: Distribution, typing: bool = False) -> dict[str, str]:
    """Return the distributions that a distribution's files import from, and where; ``typing`` for type checkers too."""
    return {
        MODULES.get(found.root, DISTRIBUTIONS.get(found.root, found.root)): where(path, found.line)
        for path in each.sources(generated=True)
        for found in imports(path)
        if found.foreign and (typing or not found.typing) and found.root != each.module
    }


@pytest.mark.parametrize("each", ALL, ids=ids)
def test_what_is_imported_is_declared(each: Distribution) -> None:
    """An installation has all that its code imports, and does not count on what others bring."""
    missing = {name: place for name, place in imported(each).items() if name not in needs(each)}
    assert not missing


@pytest.mark.parametrize("each", [each for each in ALL if each.name != "windlass"], ids=ids)
def test_what_is_declared_is_imported(each: Distribution) -> None:
    """Nothing is installed that nobody uses."""
    declared = {re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0].lower() for line in each.project["dependencies"]}
    assert not declared - set(imported(each, typing=True))


@pytest.mark.parametrize(
    "each", [each for each in ALL if "windlass-kernel" in needs(each) and each.name != "windlass"], ids=ids
)
def test_the_kernel_version_that_is_needed_is_stated(each: Distribution) -> None:
    """From this version on, up to the next that changes what plugins use: pip refuses any other."""
    major, minor, _ = Distribution(TREE / "kernel").project["version"].split(".")
    [line] = [line for line in each.project["dependencies"] if line.startswith("windlass-kernel")]
    assert line.partition(" ")[2] == f">={major}.{minor},<{major}.{int(minor) + 1}"


@pytest.mark.parametrize("each", ALL, ids=ids)
def test_metadata_is_complete(each: Distribution) -> None:
    """Licence, Python version and description are there, and the version is one for all."""
    project = each.project
    assert project["license"] == {"text": "Apache-2.0"}
    assert (project["requires-python"], project["version"]) == (">=3.11", "0.1.0")
    assert project["description"] and (each.folder / project["readme"]).exists()
    assert each.pyproject["build-system"]["build-backend"] == "flit_core.buildapi"


def test_the_distribution_windlass_brings_all_of_ours_in_one_version() -> None:
    """`pip install windlass` brings every plugin, and never a mix of two releases."""
    [whole] = [each for each in ALL if each.name == "windlass"]
    project = whole.project
    pins = [*project["dependencies"], *project["optional-dependencies"]["conformance"]]
    pinned = {line.partition(" ==")[0].partition("[")[0]: line.partition(" ==")[2] for line in pins if " ==" in line}
    parts = [each for each in ALL if each != whole and each.folder.parent.name != "examples"]
    assert pinned == {each.name: each.project["version"] for each in parts}


def test_a_release_is_the_same_whenever_and_wherever_it_is_built(tmp_path: Path) -> None:
    """Two trees whose files have other times and modes give the same wheels and source archives, byte by byte."""
    pytest.importorskip("flit_core", reason="flit_core is not installed; pip install flit_core")
    places = [tmp_path / "one", tmp_path / "two"]
    for number, place in enumerate(places):
        for each in ALL:
            copy = place / each.folder.relative_to(TREE)
            shutil.copytree(each.folder, copy, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        shutil.copytree(TREE / "scripts", place / "scripts")
        for path in place.rglob("*"):
            os.utime(path, (number * 1000, number * 1000))
            path.chmod(0o700 if number and path.is_dir() else 0o600 if number else path.stat().st_mode)
        command = [sys.executable, str(place / "scripts/wheels.py"), str(place / "dist")]
        env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "TZ": f"UTC{number}"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env)
        assert done.returncode == 0, done.stderr
    one, two = ({path.name: path.read_bytes() for path in (place / "dist").iterdir()} for place in places)
    assert len(one) == 2 * len([each for each in ALL if each.folder.parent.name != "examples"])
    assert sorted(one) == sorted(two)
    assert [name for name in one if one[name] != two[name]] == []


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel of every distribution, by its folder's name."""
    pytest.importorskip("flit_core", reason="flit_core is not installed; pip install flit_core")
    made = {}
    for each in ALL:
        out = tmp_path_factory.mktemp(each.folder.name)
        command = [sys.executable, "-m", "flit_core.wheel", "--outdir", str(out), str(each.folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{each}: {done.stderr}"
        [made[str(each)]] = out.glob("*.whl")
    return made


def test_each_distribution_builds_a_wheel_with_all_its_files(wheels: dict[str, Path]) -> None:
    """Sources, type marker and entry points arrive where pip puts them; tests and scripts do not."""
    for each in ALL:
        with zipfile.ZipFile(wheels[str(each)]) as wheel:
            names = set(wheel.namelist())
            sources = {str(path.relative_to(each.folder)) for path in (each.folder / each.module).rglob("*.py")}
            assert sources <= names, f"{each}: {sources - names}"
            assert f"{each.module}/py.typed" in names
            assert {name.partition("/")[0] for name in names} == {each.module, _dist_info(names)}
            if each.entry_points:
                text = wheel.read(f"{_dist_info(names)}/entry_points.txt").decode()
                assert all(uri in text for uri in each.entry_points)


def _dist_info(names: set[str]) -> str:
    [folder] = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    return folder


@pytest.mark.parametrize("each", distributions("plugins/*", "examples/*"), ids=ids)
def test_each_plugin_registers_with_nothing_but_the_kernel_beside_it(
    each: Distribution, wheels: dict[str, Path], tmp_path: Path
) -> None:
    """A plugin's declaration loads from its wheel where no other of our distributions is installed."""
    site = tmp_path / "site"
    for wheel in (wheels[str(each)], wheels["kernel"]):
        with zipfile.ZipFile(wheel) as file:
            file.extractall(site)
    # -S leaves out site-packages and with it our own installation; third parties come back one by one
    for name in ("stevedore", "pluggy"):
        _link(name, site)
    program = (
        "import sys\nfrom windlass import discovery\n"
        "found = discovery.discover()\n"
        "print(*sorted(each.uri for each in found))\n"
        "sys.exit('; '.join(f'{each.uri}: {each.error!r}' for each in found if each.plugin is None) or 0)\n"
    )
    command = [sys.executable, "-S", "-c", program]
    env = {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(each.entry_points)


def _link(module: str, site: Path) -> None:
    """Make an installed third-party package importable in ``site``."""
    file = __import__(module).__file__
    assert file is not None
    (site / module).symlink_to(Path(file).parent)


def test_requirements_install_from_this_tree_only() -> None:
    """No distribution of ours is ever fetched by name from an index, where anybody could take it."""
    ours = set(MODULES.values())
    lines = (TREE / "requirements-dev.txt").read_text().splitlines()
    assert not [line for line in lines if re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0] in ours]
