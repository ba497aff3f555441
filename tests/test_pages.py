"""Python on the pages: whatever a block imports from this tree is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import TREE, distributions, where

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
IMPORT = re.compile(r"^ *from (\w[\w.]*) import (.+)$", re.MULTILINE)
OURS = {each.module for each in distributions()}


def pages() -> Iterator[Path]:
    yield from TREE.glob("*.md")
    yield from TREE.glob("docs/**/*.md")
    yield from (each.folder / "README.md" for each in distributions())


def imported() -> Iterator[tuple[str, str, str]]:
    """Yield page, module and name of each import from this tree in a Python block of a page."""
    for page in sorted(set(pages())):
        for block in BLOCK.findall(page.read_text()):
            for module, names in IMPORT.findall(block):
                if module.partition(".")[0] in OURS:
                    yield from ((where(page), module, name.strip()) for name in names.split(","))


IMPORTED = sorted(set(imported()))


def test_pages_have_python() -> None:
    """The pattern finds what it is for."""
    assert len(IMPORTED) > 5


@pytest.mark.parametrize(("page", "module", "name"), IMPORTED, ids=str)
def test_an_import_on_a_page_works(page: str, module: str, name: str) -> None:
    """A reader can type the code of a page."""
    # as `from MODULE import NAME` does it: the name may be a submodule
    assert hasattr(__import__(module, fromlist=[name]), name), f"{page}: {module} has no {name}"
