"""Signals a container, and removes one that has ended."""

from __future__ import annotations

import os
import signal
import sys
import time

from windlass.errors import FailedPrecondition, NotFound
from windlass_linux.cgroups import PATIENCE, remove, remove_within
from windlass_oci_runtime import cgroups, hooks, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from windlass_oci_runtime.json_types import Document

PAUSE = 0.002
"""Seconds between two looks whether what has been killed is gone."""


def kill(container: state.Container, number: int, everybody: bool = False) -> None:
    """Send a signal to init, or to all processes. Raises NotFound when they have ended."""
    found = container.read()
    sent = everybody and bool(found["cgroups"]) and cgroups.signal_all(found["cgroups"], number)
    if number == signal.SIGKILL and cgroups.is_frozen(found["cgroups"]):
        # Who stands still does not end before going on.
        _send(found["pid"], number)
        cgroups.freeze(found["cgroups"], frozen=False)
        return
    if sent:
        return
    if not state.is_alive(found["pid"], found["started"]) or not _send(found["pid"], number):
        raise NotFound(f"container {container.id} is not running: process already finished")


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def delete(container: state.Container, force: bool = False) -> None:
    """Do what `deleting` does, and wait for it."""
    for _ in deleting(container, force):
        time.sleep(PAUSE)


def deleting(container: state.Container, force: bool = False) -> Iterator[None]:
    """Remove a container that has stopped, by force also one that has not; yields while the caller is to wait a moment.

    Raises NotFound, FailedPrecondition; that control groups are in use by others only when the rest is gone.
    """
    found = container.read()
    if container.status(found) != state.STOPPED:
        if not force:
            raise FailedPrecondition(f"cannot delete container {container.id} that is not stopped: kill it first")
        kill(container, signal.SIGKILL, everybody=True)
    left = remove(found["cgroups"])
    if left:
        # Without a PID namespace of its own, init's end leaves the others.
        _kill_all(left)
    deadline = time.monotonic() + PATIENCE
    while left and time.monotonic() < deadline:
        yield
        left = remove(left)
    container.remove()
    if left:
        raise FailedPrecondition(f"cannot remove the control groups of container {container.id}: {left[0]} is in use")
    _afterwards(found)


def abandon(container: state.Container, groups: list[str]) -> None:
    """Remove a container in any state, also half made, with all processes in its ``groups``.

    Raises FailedPrecondition for groups that stay.
    """
    try:
        found = container.read()
    except NotFound:
        found = {"cgroups": groups}
        if not os.path.isdir(container.directory):
            # The name was never taken, or is free again: whatever runs in these groups is not the container's.
            remove(groups)
            return
    else:
        if state.is_alive(found["pid"], found["started"]):
            _send(found["pid"], signal.SIGKILL)
    groups = found["cgroups"]
    if groups:
        _kill_all(groups)
    if left := remove_within(groups):
        raise FailedPrecondition(f"cannot remove the control groups of container {container.id}: {left[0]} is in use")
    container.remove()
    _afterwards(found)


def _kill_all(groups: list[str]) -> None:
    cgroups.signal_all(groups, signal.SIGKILL)
    if cgroups.is_frozen(groups):
        cgroups.freeze(groups, frozen=False)


def _afterwards(found: Document) -> None:
    if wanted := found.get("hooks", {}).get("poststop"):
        warn(hooks.run_each("poststop", wanted, oci_state(found, state.STOPPED)))


def warn(failures: Sequence[Exception]) -> None:
    """Log failures that change nothing: the specification has hooks after start and end warned of only."""
    for failure in failures:
        sys.stderr.write(f"warning: {failure}\n")


def start(container: state.Container) -> None:
    """Let init go on. Raises NotFound, FailedPrecondition if it does not wait."""
    found = container.read()
    try:
        container.start()
    except OSError:
        raise FailedPrecondition(f"cannot start container {container.id}: it is {container.status(found)}") from None
    if wanted := found["hooks"].get("poststart"):
        warn(hooks.run_each("poststart", wanted, oci_state(found, state.RUNNING)))


def oci_state(found: Document, status: str) -> dict[str, object]:
    """Return a container's state in the words of the specification."""
    names = ("ociVersion", "id", "bundle", "annotations", *(("pid",) if status != state.STOPPED else ()))
    return {**{name: found[name] for name in names}, "status": status}
