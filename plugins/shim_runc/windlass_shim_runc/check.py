"""Looks at the runc of this machine: whether it is one with known weaknesses, and what it keeps without a bundle."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

from windlass.contracts.checks import Checked, Problem
from windlass.records import dataclass
from windlass.typing import override
from windlass_shim_runc import versions
from windlass_shim_runc.kept import TASK_DIRECTORY, is_anothers, sweep

logger = logging.getLogger(__name__)

PROGRAM, OWN_PROGRAM = "runc", "windlass-oci"
KEYS, OWN_KEYS = ("init_process_pid", "init_process_start"), ("pid", "started")
"""Names of a container's process, and of its start, in the state.json of either."""

TIMEOUT = 10.0
MAX_STATE = 1 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """What runc keeps of a container; ``pid`` is 0 when its process does not run."""

    namespace: str
    id: str
    directory: Path
    pid: int
    is_own: bool
    """Whether our own runtime keeps it."""


def warn_of_weaknesses(program: str = PROGRAM) -> None:
    """Say in the log when the runc that tasks get, unless they name another one, has known weaknesses."""
    try:
        done = run([program, "--version"])
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.info("cannot ask %s for its version: %s", program, error)
        return
    if words := versions.warning(done.stdout):
        logger.warning("%s; docs/operating.md says which version has which", words)


class RuncCheck(Checked):
    """Looks for what runc keeps that has no bundle; what has one is the task manager's."""

    def __init__(self, state: Path) -> None:
        """Look below the daemon's state directory."""
        self._root = state / "runc"
        self._bundles = state / TASK_DIRECTORY

    @override
    def check(self, repair: bool = False, deep: bool = False) -> list[Problem]:
        # A container that runs is named, and left to the operator.
        return [self._problem(kept, repair) for kept in self._kept()]

    def _kept(self) -> Iterator[Kept]:
        for directory in sorted(self._root.glob("*/*")):
            namespace, id = directory.parent.name, directory.name
            bundle = self._bundles / namespace / id
            if directory.is_dir() and not bundle.exists() and not is_anothers(str(directory), str(bundle)):
                pid, is_own = running(directory / "state.json")
                yield Kept(namespace, id, directory, pid, is_own)

    def _problem(self, kept: Kept, repair: bool) -> Problem:
        what = f"container {kept.namespace}/{kept.id} that runc keeps in {kept.directory}"
        program = OWN_PROGRAM if kept.is_own else PROGRAM
        command = [program, "--root", str(kept.directory.parent), "delete", "--force", kept.id]
        if kept.pid:
            return Problem(what, f"has no bundle and runs as process {kept.pid}", f"end it: {' '.join(command)}")
        state = "has no bundle"
        if not repair:
            return Problem(what, state, "run with --repair to have it removed")
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            run(command)
        if reason := sweep(str(kept.directory)):
            return Problem(what, state, f"it cannot be removed: {reason}")
        return Problem(what, state, "it was removed", repaired=True)


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command for a bounded time; what it prints may be any bytes."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, errors="replace", timeout=TIMEOUT, check=False
    )


def running(state: Path) -> tuple[int, bool]:
    """Return the process that a state.json names, 0 when that has ended and the number may be another's.

    And whether the file is that of our own runtime.
    """
    is_own = False
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        with state.open("rb") as file:
            kept = json.loads(file.read(MAX_STATE))
        is_own = "init_process_pid" not in kept and "started" in kept
        pid, began = int(kept[OWN_KEYS[0] if is_own else KEYS[0]]), str(kept[OWN_KEYS[1] if is_own else KEYS[1]])
        # proc(5): the name, which may hold anything, ends at the last parenthesis; the start is the 20th after it.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        if fields[19] == began and fields[0] not in "ZX":
            return pid, is_own
    return 0, is_own
