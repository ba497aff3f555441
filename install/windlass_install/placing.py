"""Puts the files of an installation in their places, and takes them away again.

A list in the environment says what was put where. Only that is ever replaced or removed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import StartError
from windlass_install.layout import CONFIGURATION, Places, commands, configuration, contents

RECORD = "share/windlass/installed"
"""Below the environment: the paths of all files and directories outside of it, one on each line."""


@dataclass(frozen=True)
class Root:
    """A host's root directory, or the tree of a package that is being made."""

    path: Path = Path("/")

    def at(self, path: Path) -> Path:
        """Return where an absolute path is below this root."""
        return self.path / path.relative_to("/")


def place(environment: Path, places: Places, root: Root, replaced: Iterable[Path] = ()) -> None:
    """Put every file in its place, and record it in ``environment``, a path as seen from ``root``.

    ``replaced`` are the files of an earlier installation; those that this one does not have are removed. A
    configuration that is there stays. The record is written first, so that a killed installation can be run again or
    removed. Raises StartError for a file of somebody else, before anything is changed; after any other error, files
    that ``replaced`` does not have are gone again.
    """
    texts = dict(contents(places))
    links = {places.commands / name: environment / "bin" / name for name in commands()}
    earlier = list(replaced)
    _refuse_strangers(root, {*texts, *links} - set(earlier))
    made = _with_new_directories(root, sorted({*texts, *links}))
    _record(root, environment, [*earlier, *made])
    try:
        _write_all(root, texts, links)
        _write_configuration(root)
    except BaseException:
        remove([path for path in made if path not in earlier], root)
        raise
    kept = [path for path in earlier if path in made or _is_directory(root.at(path))]
    remove([path for path in earlier if path not in kept], root)
    _record(root, environment, [*kept, *made])


def _record(root: Root, environment: Path, paths: Iterable[Path]) -> None:
    record = root.at(environment) / RECORD
    record.parent.mkdir(parents=True, exist_ok=True)
    _write(record, "".join(f"{path}\n" for path in dict.fromkeys(paths)).encode())


def _refuse_strangers(root: Root, paths: Iterable[Path]) -> None:
    for path in sorted(paths):
        if os.path.lexists(root.at(path)):
            raise StartError(f"{path} is in the way: this installation did not put it there; remove it first")


def _with_new_directories(root: Root, files: Iterable[Path]) -> list[Path]:
    """Return files, each after the directories that have to be made for it."""
    found: dict[Path, None] = {}
    for file in files:
        missing = [each for each in file.parents if not root.at(each).exists()]
        found |= dict.fromkeys([*reversed(missing), file])
    return list(found)


def _write_all(root: Root, texts: Mapping[Path, bytes], links: Mapping[Path, Path]) -> None:
    for path in sorted({*texts, *links}):
        for parent in reversed(path.parents):
            root.at(parent).mkdir(mode=0o755, exist_ok=True)
        _write(root.at(path), links[path] if path in links else texts[path])


def _write_configuration(root: Root) -> None:
    target = root.at(CONFIGURATION)
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not os.path.lexists(target):
        _write(target, configuration())


def _write(target: Path, content: bytes | Path) -> None:
    """Make a file, or a link to a path; it is there whole or not at all."""
    beside = target.with_name(f".{target.name}.new")
    beside.unlink(missing_ok=True)
    try:
        if isinstance(content, Path):
            beside.symlink_to(content)
        else:
            beside.write_bytes(content)
            beside.chmod(0o644)
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def recorded(environment: Path) -> list[Path]:
    """Return what an environment's record has; nothing if it has none."""
    try:
        return [Path(line) for line in (environment / RECORD).read_text().splitlines()]
    except FileNotFoundError:
        return []


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def remove(paths: Iterable[Path], root: Root = Root()) -> None:  # it is frozen
    """Remove files, and directories that are empty then."""
    for path in reversed(list(paths)):
        target = root.at(path)
        if _is_directory(target):
            with contextlib.suppress(OSError):
                target.rmdir()
        else:
            target.unlink(missing_ok=True)
