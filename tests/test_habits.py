"""Habits that are counted: how much is untyped, how much is tested, and that hooks and editors know what CI checks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from house import TREE, Distribution, distributions, parsed, where

ANY_PER_THOUSAND_LINES = 0.25
"""Most uses of Any in 1,000 lines of sources."""
KERNEL = ("tests/kernel", "tests/faults")
SHIM = ("tests/shim_runc",)
TESTED = {"kernel": (KERNEL, 0.83), "plugins/shim_runc": (SHIM, 0.82)}
"""Lines of unit tests for each line of source, at least: of what all else stands on."""


def uses_of_any(path: Path) -> list[str]:
    """Return where a file uses typing's Any; protobuf's is another word, and imports do not count."""
    tree = parsed(path)
    names = {
        each.asname or each.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "typing"
        for each in node.names
        if each.name == "Any"
    }
    return [
        where(path, node.lineno)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id in names)
        or (isinstance(node, ast.Attribute) and ast.unparse(node) == "typing.Any")
    ]


def lines(paths: Iterable[Path]) -> int:
    return sum(len(path.read_text().splitlines()) for path in paths)


def test_any_is_rare() -> None:
    """What is Any is not checked at all, so that it has to be worth it."""
    sources = [path for each in distributions() for path in each.sources()]
    found = [place for path in sources for place in uses_of_any(path)]
    assert len(found) / lines(sources) * 1000 <= ANY_PER_THOUSAND_LINES, found


@pytest.mark.parametrize("folder", TESTED)
def test_what_all_else_stands_on_is_tested_alone(folder: str) -> None:
    """Kernel and shim have unit tests of a length that fits theirs."""
    places, least = TESTED[folder]
    tests = lines(path for place in places for path in (TREE / place).rglob("*.py"))
    sources = lines(Distribution(TREE / folder).sources())
    assert tests / sources >= least, f"{tests} lines of unit tests for {sources} lines of {folder}"


def test_hooks_check_what_ci_checks() -> None:
    """With the same programs and the same words, so that what a commit passes CI passes too."""
    hooks = re.findall(r"entry: \.venv/bin/(.+)", (TREE / ".pre-commit-config.yaml").read_text())
    checks = re.findall(r"^((?:ruff|mypy).*)$", (TREE / "scripts" / "test").read_text(), re.MULTILINE)
    assert hooks == checks
    contributing = (TREE / "CONTRIBUTING.md").read_text()
    assert not [check for check in checks if check not in contributing]


def test_editors_know_the_length_of_a_line() -> None:
    """It is the formatter's."""
    [formatted] = re.findall(r"^line-length = (\d+)", (TREE / "pyproject.toml").read_text(), re.MULTILINE)
    assert f"max_line_length = {formatted}\n" in (TREE / ".editorconfig").read_text()
