"""Takes an installation away from a host: not under containers that run, and data only if that is asked for."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from windlass.config import loading
from windlass.discovery import discover
from windlass.errors import StartError
from windlass_install.layout import CONFIGURATION, UNITS
from windlass_install.placing import recorded, remove
from windlass_linux import mounting

TASKS = "io.containerd.runtime.v2.task"
CLIENT_STATE = Path("/run/windlass-client")
CLIENT_DATA = Path("/var/lib/windlass-client")


def uninstall(environment: Path, purge: bool, force: bool) -> list[Path]:
    """Stop the daemon, remove the installation and return what is left on purpose.

    Raises StartError while containers are there, unless ``force``, and for a daemon that it cannot stop.
    """
    root, state = _directories()
    left = containers(state)
    if left and (purge or not force):
        remedy = "remove them first" if purge else "remove them first, or leave them as they are with --force"
        raise StartError(f"{len(left)} containers are there, such as {left[0]}: {remedy}")
    _stop_units()
    _refuse_running(root)
    data = [CONFIGURATION.parent, root, CLIENT_DATA, state, CLIENT_STATE]
    if purge:
        _remove_networks()
    remove(recorded(environment))
    shutil.rmtree(environment)
    if purge:
        for path in data:
            _remove_tree(path)
    return [path for path in data if path.exists()]


def _directories() -> tuple[Path, Path]:
    """Return root and state of the daemon that is to be removed."""
    draft = loading.read(None)
    settled = draft.settle(discover(draft.disabled))
    return settled.root, settled.state


def containers(state: Path) -> list[str]:
    """Return the containers that have a bundle, as namespace and ID."""
    return sorted("/".join(path.parts[-2:]) for path in (state / TASKS).glob("*/*"))


def _stop_units() -> None:
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "disable", "--now", *UNITS], check=False, stderr=subprocess.DEVNULL)


def _refuse_running(root: Path) -> None:
    """Raise StartError if a daemon holds its root directory."""
    if not root.is_dir():
        return
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartError(f"windlassd is running on {root}: stop it first; its containers go on") from None
    finally:
        os.close(descriptor)


def _remove_networks() -> None:
    from windlass_client.networks import settings
    from windlass_client.networks.remove import remove_all

    catalog = settings.catalog({})
    remove_all(catalog)
    for directory in (catalog.conf_dir, catalog.conf_dir.parent):  # CNI's, which others may use
        with contextlib.suppress(OSError):
            directory.rmdir()


def _remove_tree(path: Path) -> None:
    """Remove a directory, unless something is mounted below: that would be removed with it. Raises StartError."""
    if found := mounting.mounts_below(path):
        raise StartError(f"{path} stays: {found[0]} is mounted there; unmount it and remove {path}")
    if path.exists():
        shutil.rmtree(path)
