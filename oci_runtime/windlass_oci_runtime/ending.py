"""Signals a container, and removes one that has ended."""

from __future__ import annotations

import os
import signal

from windlass.errors import FailedPrecondition, NotFound
from windlass_linux.cgroups import remove_within
from windlass_oci_runtime import cgroups, hooks, state


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
    """Remove a container that has stopped, by force also one that has not. Raises NotFound, FailedPrecondition."""
    found = container.read()
    if container.status(found) != state.STOPPED:
        if not force:
            raise FailedPrecondition(f"cannot delete container {container.id} that is not stopped: kill it first")
        kill(container, signal.SIGKILL, everybody=True)
    if left := remove_within(found["cgroups"]):
        raise FailedPrecondition(f"cannot remove the control groups of container {container.id}: {left[0]} is in use")
    container.remove()
    hooks.run_all("poststop", found["hooks"].get("poststop") or (), oci_state(found, state.STOPPED))


def start(container: state.Container) -> None:
    """Let init go on. Raises NotFound, FailedPrecondition if it does not wait; Failure of a hook, when it runs."""
    found = container.read()
    try:
        container.start()
    except OSError:
        raise FailedPrecondition(f"cannot start container {container.id}: it is {container.status(found)}") from None
    hooks.run_all("poststart", found["hooks"].get("poststart") or (), oci_state(found, state.RUNNING))


def oci_state(found: state.Json, status: str) -> dict[str, object]:
    """Return a container's state in the words of the specification."""
    return {**{name: found[name] for name in ("ociVersion", "id", "pid", "bundle", "annotations")}, "status": status}
