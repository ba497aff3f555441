"""Ends what a dead shim of an OCI runtime has left; run in a child of the zygote for shims that bring no cleanup.

It knows a container by the files that every runc shim writes into its bundle
(reference 4.2), so it needs nothing of the shim's own code.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from windlass_runtime_v2.bundles import unmount_all

ENTRY = "windlass_runtime_v2.leftovers:clean"
TIMEOUT = 10.0
MAX_FILE = 64 << 10
CONTAINERD_ROOT = "/run/containerd/runc"
TASKS = "io.containerd.runtime.v2.task"


def clean(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Have the OCI runtime kill and forget a container, then unmount its rootfs; 0 also when there was none."""
    bundle, namespace, id = arguments
    directory = Path(bundle)
    status = 0
    command = delete_command(directory, namespace, id)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=TIMEOUT, check=False)
        status = done.returncode
    except (OSError, subprocess.TimeoutExpired):
        status = 1
    unmount_all(directory / "rootfs")
    return status


def delete_command(bundle: Path, namespace: str, id: str) -> list[str]:
    """Return the command that ends a container as its shim had it made."""
    program = _read(bundle / "runtime").decode(errors="replace").strip() or "runc"
    try:
        options = json.loads(_read(bundle / "options.json") or b"{}")
    except (ValueError, RecursionError):
        options = {}
    if not isinstance(options, dict):
        options = {}
    root = options.get("root") or default_root(bundle)
    command = [program, "--root", f"{root}/{namespace}"]
    if options.get("systemd_cgroup"):
        command.append("--systemd-cgroup")
    return [*command, "delete", "--force", id]


def default_root(bundle: Path) -> str:
    """Return where our shim has the OCI runtime keep its state: beside the bundles of the daemon."""
    tasks = bundle.parent.parent
    return str(tasks.parent / "runc") if tasks.name == TASKS else CONTAINERD_ROOT


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE)
    except OSError:
        return b""
