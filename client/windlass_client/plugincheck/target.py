"""What is to be checked: a package's directory, or an installed distribution, as entry points."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from windlass.discovery import GROUP
from windlass.errors import InvalidArgument, NotFound


@dataclass(frozen=True)
class Target:
    """The plugins of one package: what their entry points name, by URI."""

    name: str
    plugins: dict[str, str]
    paths: tuple[str, ...] = ()
    """Directories to import from, of a package that need not be installed."""
    tests: Path | None = None


def find(what: str) -> Target:
    """Return the plugins of a directory, or of a distribution by its name. Raises InvalidArgument, NotFound."""
    path = Path(what)
    if path.is_dir() or "/" in what:
        return _of_directory(path)
    try:
        entries = distribution(what).entry_points.select(group=GROUP)
    except (PackageNotFoundError, ValueError):
        raise NotFound(f"{what} is neither a directory nor an installed distribution; pip install it first") from None
    found = {entry.name: entry.value for entry in entries}
    if not found:
        raise InvalidArgument(f'{what} has no entry point of the group "{GROUP}", so it brings no plugin')
    return Target(what, found)


def _of_directory(path: Path) -> Target:
    file = path / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text()).get("project", {})
    except FileNotFoundError:
        raise NotFound(f"{file} does not exist; name the directory of a package") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"{file} cannot be read: {error}") from None
    entries = project.get("entry-points", {}).get(GROUP, {}) if isinstance(project, dict) else {}
    if not isinstance(entries, dict) or not entries:
        raise InvalidArgument(f'{file} has no table [project.entry-points."{GROUP}"], so it brings no plugin')
    root = path.resolve()
    tests = root / "tests"
    places = (str(root), str(root / "src")) if (root / "src").is_dir() else (str(root),)
    plugins = {str(uri): str(value) for uri, value in entries.items()}
    return Target(str(project.get("name", path.name)), plugins, places, tests if tests.is_dir() else None)
