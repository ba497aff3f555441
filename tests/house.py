"""Where the tree keeps its distributions, and what their files import: for the tests that look after the house."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Import:
    """One import of a module, such as ``windlass.errors``."""

    module: str
    line: int
    late: bool
    """Inside a function, so that it costs nothing until that is called."""
    typing: bool
    """Under ``if TYPE_CHECKING``, so that it never happens."""

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]

    @property
    def foreign(self) -> bool:
        return self.root not in sys.stdlib_module_names


@dataclass(frozen=True)
class Distribution:
    """A folder with a pyproject.toml and one package."""

    folder: Path

    # Any: TOML as parsed.
    @cached_property
    def pyproject(self) -> dict[str, Any]:
        return tomllib.loads((self.folder / "pyproject.toml").read_text())

    # Any: TOML as parsed.
    @property
    def project(self) -> dict[str, Any]:
        project: dict[str, Any] = self.pyproject["project"]
        return project

    @property
    def name(self) -> str:
        return str(self.project["name"])

    @property
    def module(self) -> str:
        return str(self.pyproject["tool"]["flit"]["module"]["name"])

    @property
    def entry_points(self) -> dict[str, str]:
        return dict(self.project.get("entry-points", {}).get("windlass.plugins", {}))

    def sources(self, generated: bool = False) -> list[Path]:
        paths = sorted((self.folder / self.module).rglob("*.py"))
        return [path for path in paths if generated or "_pb2" not in path.name]

    def __str__(self) -> str:
        return str(self.folder.relative_to(TREE))


def distributions(*patterns: str) -> list[Distribution]:
    """Return the distributions below the given folders, all of them if none is given."""
    found = (path for pattern in patterns or ("*", "plugins/*", "examples/*") for path in TREE.glob(pattern))
    return [Distribution(path) for path in sorted(found) if path != TREE and (path / "pyproject.toml").is_file()]


def own_sources() -> list[Path]:
    """Return every Python file that a person wrote."""
    paths = {path for each in distributions() for path in each.sources()}
    for folder in ("api", "tests", "scripts", "bench"):
        paths.update(path for path in (TREE / folder).rglob("*.py") if "_pb2" not in path.name)
    return sorted(paths)


@cache
def parsed(path: Path) -> ast.Module:
    """Return a file's syntax tree; many tests look at every file."""
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """Return the imports of a file, relative ones left out."""
    return tuple(_imports(parsed(path), late=False, typing=False))


def _imports(node: ast.AST, late: bool, typing: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(each.name, node.lineno, late, typing) for each in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield Import(node.module, node.lineno, late, typing)
    elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for child in node.body:
            yield from _imports(child, late, typing=True)
        for child in node.orelse:
            yield from _imports(child, late, typing)
    else:
        late = late or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for each in ast.iter_child_nodes(node):
            yield from _imports(each, late, typing)


def where(path: Path, line: int = 0) -> str:
    """Name a place in the tree, for messages."""
    return f"{path.relative_to(TREE)}" + (f":{line}" if line else "")
