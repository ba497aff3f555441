"""Finds the program of a process, and executes it. The words of an error are those that clients of runc look for."""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class NotExecutable(Exception):
    """Why a program cannot be executed: ``exec: "NAME": reason``."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f'exec: "{name[:400]}": {why}')


def find(name: str, environment: Sequence[str]) -> str:
    """Return the path of a program, in the present root and working directory. Raises NotExecutable."""
    if "/" in name:
        return _checked(name, name)
    path = next((each[5:] for each in environment if each.startswith("PATH=")), DEFAULT_PATH)
    for directory in path.split(":"):
        try:
            return _checked(f"{directory or '.'}/{name}", name)
        except NotExecutable:
            continue
    raise NotExecutable(name, "executable file not found in $PATH")


def _checked(path: str, name: str) -> str:
    try:
        found = os.stat(path)
    except OSError as error:
        raise NotExecutable(name, f"stat {path}: {(error.strerror or '').lower()}") from None
    if stat.S_ISDIR(found.st_mode) or not os.access(path, os.X_OK, effective_ids=True):
        raise NotExecutable(name, "permission denied")
    return path


def execute(path: str, args: Sequence[str], environment: Sequence[str]) -> NoReturn:
    """Become the program. Raises NotExecutable."""
    # The same name twice in the environment: the last one counts, as in Go's os/exec.
    variables = dict(each.partition("=")[::2] for each in environment)
    try:
        os.execve(path, list(args), variables)  # noqa: S606 -- which is the point
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise NotExecutable(args[0], "no such file or directory") from None
        raise NotExecutable(args[0], (error.strerror or "").lower()) from None
