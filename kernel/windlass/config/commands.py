"""`config default|check|dump|migrate`, for `windlassd` and for `windlass`.

What the daemon itself reads is `windlass.config.loading`; this prints and explains it.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from windlass import discovery
from windlass.config import files as configfiles
from windlass.config import loading as config
from windlass.config import toml
from windlass.config.loading import Flags, Paths
from windlass.config.migrate import VERSION, blocks, migrate
from windlass.config.settings import Debug, TopLevel
from windlass.config.toml import Mark, Table
from windlass.config.validate import ERROR, ConfigError, Problem, Reader, raise_errors
from windlass.discovery import Found
from windlass.graph import start_order
from windlass.plugin import Plugin


def parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of what follows ``config``."""
    top = argparse.ArgumentParser(f"{program} config", allow_abbrev=False)
    commands = top.add_subparsers(dest="action", metavar="ACTION", required=True)
    commands.add_parser("default", help="print the defaults of the daemon and of every installed plugin")
    for action, about in (
        ("check", "report every problem, with file, line and remedy; exit code 1 if one is an error"),
        ("dump", "print the effective configuration, each value with the file and line it came from"),
        ("migrate", f"print the file in version {VERSION}, with its comments"),
    ):
        command = commands.add_parser(action, help=about)
        command.add_argument("file", nargs="?", help="configuration file, instead of --config")
    return top


def run(
    argv: Sequence[str],
    path: Path | None = None,
    paths: Paths = config.WINDLASS,
    flags: Flags = config.NO_FLAGS,
    program: str = "windlassd",
) -> int:
    """Run ``config ARGV`` and return the exit code; raises StartError with what makes it impossible."""
    options = parser(program).parse_args(argv)
    if options.action == "default":
        sys.stdout.write(default_text(paths, discovery.discover()))
        return 0
    path = Path(options.file) if options.file else path
    if options.action == "check":
        return _check(path, paths, flags)
    if options.action == "dump":
        return _dump(path, paths, flags)
    return _migrate(path or Path(paths.config))


def _check(path: Path | None, paths: Paths, flags: Flags) -> int:
    problems = check(path, paths, flags)
    for problem in problems:
        sys.stdout.write(f"{problem.mark}: {problem.severity}: {problem.message}\n")
    if not problems:
        sys.stdout.write(f"{path or paths.config}: no problems\n")
    return 1 if any(problem.severity == ERROR for problem in problems) else 0


def check(path: Path | None, paths: Paths, flags: Flags) -> list[Problem]:
    """Return every problem of a configuration, in the order of files and lines."""
    files = configfiles.read(path or Path(paths.config), required=path is not None)
    draft = config.Draft(paths, flags, files)
    try:
        draft.settle(discovery.discover(draft.disabled))
    except ConfigError:
        pass  # the draft has the same problems, and the warnings
    order = {table.mark.file: number for number, table in enumerate(files.tables)}
    unique = dict.fromkeys(draft.problems)
    return sorted(unique, key=lambda problem: (order.get(problem.mark.file, -1), problem.mark.line))


def _dump(path: Path | None, paths: Paths, flags: Flags) -> int:
    # like containerd's, a dump of a file that is not there shows the defaults
    present = path if path is not None and path.exists() else None
    if path is not None and present is None:
        sys.stderr.write(f"{path} does not exist; these are the defaults\n")
        paths = dataclasses.replace(paths, config=str(path))
    draft = config.read(present, paths, flags)
    settled = draft.settle(discovery.discover(draft.disabled))
    full = Table(Mark("default"))
    _fill(full, settled.table, dataclasses.replace(settled.top, **_as_absolute(settled)))
    for uri, instance in settled.plugins.items():
        if uri not in blocks(full):
            blocks(full)[uri] = Table(Mark("default"))
        _fill(blocks(full)[uri], blocks(settled.table).get(uri, Table(Mark("default"))), instance)
    sys.stdout.write(toml.render(full))
    return 0


def _as_absolute(settled: config.Config) -> dict[str, Any]:  # Any: replace() takes what the fields take
    return {"root": str(settled.root), "state": str(settled.state)}


_UNUSED = frozenset({"grpc", "ttrpc", "metrics", "plugin_dir"})
_MOVED = frozenset({"address", "uid", "gid"})


def _fill(into: Table, source: Table, instance: object) -> None:
    """Put what an instance of a configuration class holds, each value with its origin as a comment."""
    for key, value in _values(instance).items():
        mark = source.place(key) if key in source else Mark("default")
        inner = source.get(key)
        if dataclasses.is_dataclass(value) or isinstance(value, dict):
            old = into.get(key)
            into[key] = table = old if isinstance(old, Table) else Table(Mark("default"))
            below = inner if isinstance(inner, Table) else Table(mark)
            _fill(table, below, value)
        else:
            into.put(key, _plain(value), Mark(mark.file, beside=f"# {mark}"))


def _values(instance: object) -> dict[str, object]:
    if isinstance(instance, dict):
        return instance
    values = {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}  # type: ignore[arg-type] # a configuration class is a dataclass
    unused = _UNUSED if isinstance(instance, (TopLevel, Debug)) else frozenset()
    unused |= _MOVED if isinstance(instance, Debug) else frozenset()
    return {key: value for key, value in values.items() if key not in unused and value is not None}


def _plain(value: object) -> object:
    """Return a value of a field as TOML has it."""
    if dataclasses.is_dataclass(value):
        return {key: _plain(item) for key, item in _values(value).items()}
    if isinstance(value, (list, tuple, frozenset)):
        return [_plain(item) for item in (sorted(value) if isinstance(value, frozenset) else value)]
    if isinstance(value, Path):
        return str(value)
    return getattr(value, "value", value)


def default_text(paths: Paths, found: Sequence[Found]) -> str:
    """Return a commented configuration file that says what holds without one."""
    base = config.defaults(paths)
    config.derive_ttrpc(base)
    full = Table(Mark("default"))
    top = Reader().read(TopLevel, base)
    assert top is not None  # the defaults are valid
    # only a generated file has drop-ins (docs/containerd 1.3)
    drop_ins = str(Path(paths.config).parent / "conf.d" / "*.toml")
    _explain(full, dataclasses.replace(top, imports=[drop_ins]))
    reader = Reader()
    for entry in found:
        if entry.plugin is not None and entry.plugin.config is not None:
            block = blocks(base).get(entry.uri, Table(Mark("default")))
            instance = reader.read(entry.plugin.config, block, ("plugins", entry.uri))
            about = (f"# {_first_line(entry.plugin.config)}", f"# ({entry.distribution})")
            blocks(full)[entry.uri] = table = Table(Mark("", above=about))
            _explain(table, instance)
    return toml.render(full)


def _explain(into: Table, instance: object) -> None:
    """Put what an instance holds, each field with the comment that its class has on it."""
    comments = {} if isinstance(instance, dict) else field_comments(type(instance))
    for key, value in _values(instance).items():
        above = tuple(f"# {line}".rstrip() for line in comments.get(key, ()))
        if isinstance(value, dict) or dataclasses.is_dataclass(value):
            into[key] = table = Table(Mark("", above=above))
            _explain(table, value)
        else:
            into.put(key, _plain(value), Mark("", above=above))


def _first_line(kind: type[object]) -> str:
    return (inspect.getdoc(kind) or kind.__name__).splitlines()[0]


_FIELD = re.compile(r"    ([A-Za-z_]\w*)\s*:")


def field_comments(kind: type[object]) -> dict[str, list[str]]:
    """Return the ``#:`` lines above, or the docstring below, each field of a class."""
    try:
        lines = inspect.getsource(kind).splitlines()
    except OSError:
        return {}  # made at run time
    comments: dict[str, list[str]] = {}
    above: list[str] = []
    last = ""
    for number, line in enumerate(lines):
        text = line.strip()
        if text.startswith("#:"):
            above.append(text[2:].strip())
        elif found := _FIELD.match(line):
            last = found[1]
            comments[last] = above
            above = []
        elif text.startswith('"""') and last and not comments[last]:
            comments[last] = _docstring(lines[number:])
    return comments


def _docstring(lines: Sequence[str]) -> list[str]:
    text = " ".join(line.strip() for line in lines).removeprefix('"""')
    return [text.split('"""', 1)[0].strip()]


def _migrate(path: Path) -> int:
    files = configfiles.read(path, required=True)
    draft = config.Draft(config.WINDLASS, config.NO_FLAGS, files)
    raise_errors(draft.problems)
    if draft.tables[0].get("version") == VERSION:
        sys.stdout.write(path.read_text("utf-8-sig"))  # to the byte: there is nothing to migrate
    else:
        found = discovery.discover(draft.disabled)
        sys.stdout.write(migrated_text(draft.tables[0], [entry.plugin for entry in found if entry.plugin]))
    old = [str(table.mark.file) for table in draft.tables[1:] if table.get("version", 0) != VERSION]
    for name in old:
        sys.stderr.write(f"{name} is imported and has an older version too; migrate it by itself\n")
    return 0


def migrated_text(table: Table, plugins: Sequence[Plugin[object]]) -> str:
    """Return one file in the newest version, its comments kept; those of settings that are gone come last."""
    before = list(_comments(table))
    migrate(table, start_order(plugins))
    text = toml.render(table)
    lost = [line for line in before if line and line not in text]
    return text + "\n" + "\n".join(lost) + "\n" if lost else text


def _comments(table: Table) -> list[str]:
    lines: list[str] = []
    for key, value in table.items():
        mark = table.place(key)
        lines += [*mark.above, mark.beside]
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Table):
                lines += _comments(item)
    return [*lines, *table.tail]
