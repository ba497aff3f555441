"""The pages that people wrote, copied to where Sphinx reads them, each at its place in the tree.

So a link from one to another works as it stands. A link to a folder leads to the folder's README, and one to a file
of code to a copy of that file.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "findings/README.md")
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PICTURES = (".svg", ".png")


def copy(tree: Path, place: Path) -> None:
    """Copy every page of ``tree``, and what it links to, into ``place``."""
    for page in _all(tree):
        where = page.relative_to(tree)
        (place / where).parent.mkdir(parents=True, exist_ok=True)
        (place / where).write_text(_with_links(page, tree, place))
    for picture in (tree / "docs").rglob("*"):
        if picture.suffix in PICTURES:
            _copy_file(picture, tree, place)


def _all(tree: Path) -> Iterator[Path]:
    yield from (tree / name for name in TOP)
    yield from (tree / "docs").rglob("*.md")
    for project in (*tree.glob("*/pyproject.toml"), *tree.glob("*/*/pyproject.toml")):
        if (readme := project.with_name("README.md")).is_file():
            yield readme


def _with_links(page: Path, tree: Path, place: Path) -> str:
    """Return a page's text in which each link leads to something in ``place``."""

    def changed(match: re.Match[str]) -> str:
        path, anchor = match[1], match[2] or ""
        target = (page.parent / path).resolve()
        if target.is_dir():
            return f"{path.rstrip('/')}/README.md{anchor}" if (target / "README.md").is_file() else match[0]
        if target.is_file() and target.suffix != ".md" and target.is_relative_to(tree):
            _copy_file(target, tree, place)
        return match[0]

    text, parts, end = page.read_text(), [], 0
    for fence in FENCE.finditer(text):
        parts += [LINK.sub(changed, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(changed, text[end:])])


def _copy_file(file: Path, tree: Path, place: Path) -> None:
    copied = place / file.relative_to(tree)
    copied.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, copied)
