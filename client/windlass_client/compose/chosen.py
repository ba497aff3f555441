"""Which project the commands are about: the options before the command, and the files that they lead to."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.errors import NotFound

if TYPE_CHECKING:
    from windlass_client.cli import Where
    from windlass_client.compose.model import Project


@dataclass(frozen=True)
class Chosen:
    """The options of `windlass compose`."""

    where: Where
    files: tuple[str, ...] = ()
    name: str = ""
    directory: str = ""
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()

    def project(self, names: Sequence[str] = ()) -> Project:
        """Return the project with all services that are active, and those of ``names``. Raises as `load`."""
        from windlass_client.compose.files import find
        from windlass_client.compose.load import load

        sources = find(self.files, self.directory, self.env_files, os.environ, Path.cwd())
        loaded = load(sources, self.name, self.profiles, names)
        for each in loaded.unset:
            sys.stderr.write(f'windlass: variable "{each}" is not set, and stands for nothing\n')
        return loaded.project

    def project_if_any(self, names: Sequence[str] = ()) -> Project:
        """Return the project; with -p and without files, one that knows no services."""
        from windlass_client.compose.model import Project

        try:
            return self.project(names)
        except NotFound:
            if self.files or not self.name:
                raise
            return Project(self.name, Path.cwd(), (), {}, {}, {})


def report(kind: str, name: str, what: str) -> None:
    """Say on standard error what was done."""
    sys.stderr.write(f" {kind} {name}  {what}\n")
