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
    configuration that is there stays. Raises StartError for a file of somebody else, before anything is changed.
    """
    texts = dict(contents(places))
    links = {places.commands / name: environment / "bin" / name for name in commands()}
    earlier = list(replaced)
    _refuse_strangers(root, {*texts, *links} - set(earlier))
    made = _write_all(root, texts, links)
    _write_configuration(root)
    kept = [path for path in earlier if path in made or _is_directory(root.at(path))]
    remove([path for path in earlier if path not in kept], root)
    record = root.at(environment) / RECORD
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text("".join(f"{path}\n" for path in dict.fromkeys([*kept, *made])))


def _refuse_strangers(root: Root, paths: Iterable[Path]) -> None:
    for path in sorted(paths):
        if os.path.lexists(root.at(path)):
            raise StartError(f"{path} is in the way: this installation did not put it there; remove it first")


def _write_all(root: Root, texts: Mapping[Path, bytes], links: Mapping[Path, Path]) -> list[Path]:
    """Write files and links, and return them after the directories that had to be made for them."""
    made: list[Path] = []
    for path in sorted({*texts, *links}):
        made += _make_directory(root, path.parent)
        target = root.at(path)
        beside = target.with_name(f".{target.name}.new")
        beside.unlink(missing_ok=True)
        if path in links:
            beside.symlink_to(links[path])
        else:
            beside.write_bytes(texts[path])
            beside.chmod(0o644)
        beside.replace(target)
        made.append(path)
    return made


def _make_directory(root: Root, path: Path) -> list[Path]:
    missing = [each for each in (path, *path.parents) if not root.at(each).exists()]
    for each in reversed(missing):
        root.at(each).mkdir(mode=0o755)
    return list(reversed(missing))


def _write_configuration(root: Root) -> None:
    target = root.at(CONFIGURATION)
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not os.path.lexists(target):
        target.write_bytes(configuration())
        target.chmod(0o644)


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
