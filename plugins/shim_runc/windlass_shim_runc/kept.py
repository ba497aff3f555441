"""What an OCI runtime keeps of its containers: where, of whose making, and how half-made ones are removed."""

# ruff: noqa: PTH106, PTH108, PTH208
# pathlib is half a megabyte that shims do without; files here are local and short.
from __future__ import annotations

import os

from windlass_linux import mounting
from windlass_shim_runc import disk

TASK_DIRECTORY = "io.containerd.runtime.v2.task"
CONTAINERD_ROOT = "/run/containerd/runc"

KNOWN_BY = ("state.json", "status")
"""Files by which runc and crun know a container."""


def default_root(bundle: str) -> str:
    """Return where runc keeps its state when no option says so: next to the bundles of the daemon that made this one.

    A bundle is STATE/io.containerd.runtime.v2.task/NAMESPACE/ID, so that two
    daemons with states of their own never share a root; for containerd's state
    directory it is containerd's own root.
    """
    state, slash, tasks = bundle.rpartition(f"/{TASK_DIRECTORY}/")
    return f"{state}/runc" if slash and tasks.count("/") == 1 else CONTAINERD_ROOT


def is_anothers(directory: str, bundle: str) -> bool:
    """Return whether what a runtime keeps was made from another bundle than ours.

    Two daemons may be configured to keep their containers in one place; there a name is one container, and only its
    own bundle's daemon may end it.
    """
    import json  # which the zygote need not have

    try:
        state = json.loads(read(f"{directory}/state.json") or read(f"{directory}/status"))
        # crun has it as such, runc among its labels.
        labels = (state.get("config") or {}).get("labels") or ()
        names = [label.removeprefix("bundle=") for label in labels if label.startswith("bundle=")]
        owner = state.get("bundle") or (names[0] if names else bundle)
        return os.path.realpath(owner) != os.path.realpath(bundle)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return False


def sweep(directory: str) -> str:
    """Remove what a runtime keeps of a container that it has not finished making; return why it stays, or "".

    It makes a directory, and in it a mount of itself (runc 1.1), before it writes what a container is known by:
    killed in between, it refuses the name ever after.
    """
    if not disk.exists(directory):
        return ""
    if any(disk.exists(f"{directory}/{name}") for name in KNOWN_BY):
        return f"the OCI runtime still has {directory}"
    try:
        mounting.unmount_all(directory)
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    except OSError as error:
        return f"cannot remove {error.filename or directory}: {error.strerror}"
    return ""


def read(path: str) -> bytes:
    """Return a file's content, nothing when it cannot be read."""
    try:
        return disk.read(path)
    except OSError:
        return b""
