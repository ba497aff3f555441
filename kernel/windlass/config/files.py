"""The files of a configuration: read, imports followed, merged as containerd merges them.

Nothing here knows plugins: the rules are those of docs/containerd 1.3, but for loops of
imports, which containerd passes over and we report.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import field
from glob import glob
from pathlib import Path

from windlass.config.toml import LIMIT, Mark, SyntaxProblem, Table, parse
from windlass.config.validate import ERROR, Problem
from windlass.records import dataclass

MAX_FILES = 1000


@dataclass(slots=True)
class Files:
    """What was read: a table for each file, the main one first, and what is wrong with them."""

    tables: list[Table] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Import:
    path: Path
    mark: Mark
    is_match: bool = False
    """Whether it came from a pattern, which may well match the file that it is in."""


def read(path: Path, required: bool) -> Files:
    """Read a file and, breadth first, what it imports; a missing one is an error if it is ``required``."""
    files = Files()
    if not required and not path.exists():
        return files
    edges: dict[Path, list[_Import]] = {}
    queue = [_Import(_clean(path), Mark("--config"))]
    for wanted in queue:
        if wanted.path in edges:
            continue
        if len(edges) == MAX_FILES:
            files.problems.append(Problem(ERROR, wanted.mark, f"more than {MAX_FILES} files are imported"))
            break
        table = _load(wanted, files.problems)
        edges[wanted.path] = _imports(table, wanted.path, files.problems) if table is not None else []
        queue += edges[wanted.path]
        if table is not None:
            files.tables.append(table)
    files.problems += _loops(edges)
    return files


def _clean(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 # resolve() would follow links, absolute() keeps ".."


def _load(wanted: _Import, problems: list[Problem]) -> Table | None:
    path = wanted.path
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
        if len(data) > LIMIT:
            raise OSError(errno.EFBIG, f"is longer than {LIMIT >> 20} MiB")
        return parse(data.decode("utf-8-sig"), str(path))
    except SyntaxProblem as problem:
        problems.append(Problem(ERROR, problem.mark, f"not TOML: {problem}"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        problems.append(Problem(ERROR, Mark(str(path), line), "not UTF-8: save the file in that encoding"))
    except FileNotFoundError:
        remedy = "write it, or leave --config out" if not wanted.mark.line else "create it or take it out of imports"
        problems.append(Problem(ERROR, wanted.mark, f"{path} does not exist; {remedy}"))
    except OSError as error:
        problems.append(Problem(ERROR, wanted.mark, f"cannot read {path}: {error.strerror}"))
    return None


def _imports(table: Table, path: Path, problems: list[Problem]) -> list[_Import]:
    entries = table.get("imports", [])
    mark = table.place("imports")
    if not isinstance(entries, list):
        return []  # the check of the top level says so
    found = []
    for entry in entries:
        if not isinstance(entry, str) or not entry or "\0" in entry:
            problems.append(Problem(ERROR, mark, '"imports" must be a list of paths'))
            continue
        target = path.parent / entry
        if "*" in entry:
            names = sorted(glob(str(target)))  # noqa: PTH207 # the pattern may be absolute
            found += [_Import(_clean(Path(name)), mark, is_match=True) for name in names]
        else:
            found.append(_Import(_clean(target), mark))
    return found


def _loops(edges: dict[Path, list[_Import]]) -> Iterator[Problem]:
    """Find files that import themselves, directly or through others."""
    done: set[Path] = set()
    for start in edges:
        if start in done:
            continue
        chain, ahead = [start], [iter(edges[start])]
        while chain:
            wanted = next(ahead[-1], None)
            if wanted is None:
                done.add(chain.pop())
                ahead.pop()
            elif wanted.path in chain:
                loop = [*chain[chain.index(wanted.path) :], wanted.path]
                if not wanted.is_match:
                    yield Problem(ERROR, wanted.mark, f"imports go round: {' -> '.join(map(str, loop))}")
            elif wanted.path not in done:
                chain.append(wanted.path)
                ahead.append(iter(edges.get(wanted.path, [])))


APPENDED = frozenset({"disabled_plugins", "required_plugins", "imports"})
BY_ENTRY = frozenset({"proxy_plugins", "stream_processors", "timeouts"})


def merge(into: Table, table: Table) -> None:
    """Lay a later file over what earlier ones said."""
    for key, value in table.items():
        mark = table.place(key)
        if key in APPENDED:
            old = into.get(key, [])
            into.put(key, [*old, *(item for item in value if item not in old)], mark)
        elif isinstance(value, Table) and isinstance(into.get(key), Table):
            if key in BY_ENTRY:
                _update(into[key], value)
            else:
                _overlay(into[key], value, zero_counts=key == "plugins")
        elif value or key not in into:
            into.put(key, value, mark)


def _update(into: Table, table: Table) -> None:
    for key, value in table.items():
        into.put(key, value, table.place(key))


def _overlay(into: Table, table: Table, zero_counts: bool) -> None:
    """Merge recursively; outside of ``plugins`` a zero cannot override, which is how Go merges structures."""
    for key, value in table.items():
        old: object = into.get(key)
        if isinstance(value, Table) and isinstance(old, Table):
            _overlay(old, value, zero_counts)
        elif value or zero_counts or key not in into:
            into.put(key, value, table.place(key))
