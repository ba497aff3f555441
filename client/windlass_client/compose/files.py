"""Which files a project is made of: compose files and `.env`, as they are named or as they are found."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import NotFound
from windlass_client.compose import dotenv

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = ("compose.override.yaml", "compose.override.yml", "docker-compose.override.yml")


@dataclass(frozen=True)
class Sources:
    """The files of a project, and the variables that are known to them."""

    directory: Path
    files: tuple[Path, ...]
    variables: Mapping[str, str]


def find(
    named: Sequence[str], directory: str, env_files: Sequence[str], environment: Mapping[str, str], here: Path
) -> Sources:
    """Return the files of a project. Raises NotFound, InvalidArgument.

    ``named`` are the arguments of -f, ``directory`` is that of --project-directory, empty if there is none.
    """
    listed = list(named) or _listed(environment)
    files = [(here / each).absolute() for each in listed] or _search(here)
    root = (here / directory).absolute() if directory else files[0].parent
    variables = _variables([here / each for each in env_files], root, environment)
    if not listed and "COMPOSE_FILE" in variables:
        # .env may name the files, too
        files = [(root / each).absolute() for each in _listed(variables)]
    return Sources(root, tuple(files), variables)


def _listed(variables: Mapping[str, str]) -> list[str]:
    separator = variables.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
    return [each for each in variables.get("COMPOSE_FILE", "").split(separator) if each]


def _search(here: Path) -> list[Path]:
    for directory in (here.absolute(), *here.absolute().parents):
        found = [directory / name for name in NAMES if (directory / name).is_file()]
        if found:
            overrides = [directory / name for name in OVERRIDES if (directory / name).is_file()]
            return [found[0], *overrides[:1]]
    raise NotFound(f"{here} and the directories above it have no compose.yaml; name the file with -f")


def _variables(env_files: Sequence[Path], directory: Path, environment: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in env_files or [each for each in (directory / ".env",) if each.is_file()]:
        found |= dotenv.read(path, {**found, **environment})
    return {**found, **environment}
