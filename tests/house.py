"""Where the tree keeps its distributions, and what their files import: for the tests that look after the house."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator, Mapping, Set
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


def modules() -> dict[str, Path]:
    """Return every module of every distribution by its name, such as ``windlass.errors``."""
    found = {}
    for each in distributions():
        for path in each.sources():
            parts = path.relative_to(each.folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_modules(name: str, known: Mapping[str, Path]) -> set[str]:
    """Return which of the ``known`` modules one of them imports, late and for type checkers too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(known[name].read_text())):
        if isinstance(node, ast.Import):
            found.update(each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{each.name}" for each in node.names}
            # what is taken of a package may be a module of it
            found |= (names & known.keys()) or {node.module}
    return (found & known.keys()) - {name}


def circles(graph: Mapping[str, Set[str]]) -> list[list[str]]:
    """Return groups of modules in which each imports the next, and the last the first; one for each such group."""
    left = {name: set(targets) for name, targets in graph.items()}
    found = []
    while left:
        ends = [name for name, targets in left.items() if not targets & left.keys()]
        if not ends:
            circle = _circle(left)
            found.append(circle)
            ends = circle[:1]  # one module of it less, and the rest can be looked at
        for name in ends:
            del left[name]
    return found


def _circle(graph: Mapping[str, Set[str]]) -> list[str]:
    path = [min(graph)]
    while path.count(path[-1]) == 1:
        path.append(min(graph[path[-1]] & graph.keys()))
    return path[path.index(path[-1]) : -1]


def code_lines(path: Path) -> int:
    """Return how many lines of a file are code: without blank lines, comments and docstrings."""
    text = path.read_text()
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in nothing:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def identifiers(path: Path) -> set[str]:
    """Return the words of all names in a file: ``OwnLoop`` and ``own_loop`` both are own and loop."""
    with tokenize.open(path) as file:
        names = [token.string for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.NAME]
    return {word.lower() for name in names for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)}


def where(path: Path, line: int = 0) -> str:
    """Name a place in the tree, for messages."""
    return f"{path.relative_to(TREE)}" + (f":{line}" if line else "")
