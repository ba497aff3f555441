"""The documentation as a site: it is built without a warning, and has a page for whatever the code offers."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from house import TREE

from windlass import contracts
from windlass.plugin import PluginType
from windlass_client.cli import COMMANDS


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning, such as a link that leads nowhere, fails its build."""
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(TREE / "scripts" / "build_site.py"), str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return place


def test_every_page_of_the_tree_is_in_the_site(site: Path) -> None:
    """Also the README of each package."""
    pages = list(TREE.glob("docs/**/*.md"))
    assert pages
    for page in pages:
        assert (site / page.relative_to(TREE).with_suffix(".html")).is_file()


def test_every_command_is_in_the_reference(site: Path) -> None:
    """With its options."""
    text = (site / "reference" / "commands.html").read_text()
    for name in COMMANDS:
        assert f"windlass {name}" in text
    assert "--snapshotter" in text


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("configuration", "io.containerd.cri.v1.runtime"),
        ("hooks", "admit_image"),
        ("plugins", "io.containerd.snapshotter.v1"),
        ("daemon", "windlassd config migrate"),
        ("daemon", "windlassd adopt"),
    ],
)
def test_the_reference_comes_from_code(site: Path, page: str, says: str) -> None:
    """Keys, steps, types of plugins and the daemon's commands."""
    assert says in re.sub(r"<[^>]*>", "", (site / "reference" / f"{page}.html").read_text())


def test_every_type_of_plugin_has_a_recipe() -> None:
    """Each type that a contract of the kernel declares is on the page of recipes."""
    page = (TREE / "docs" / "recipes.md").read_text()
    modules = (import_module(each.name) for each in pkgutil.iter_modules(contracts.__path__, f"{contracts.__name__}."))
    kinds = {each.uri for module in modules for each in vars(module).values() if isinstance(each, PluginType)}
    assert len(kinds) > 20
    assert {uri for uri in kinds if f"`{uri}`" not in page} == set()
