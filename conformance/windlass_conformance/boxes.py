"""Containers for the cases of a runtime: a root file system with busybox, and the spec that runs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from windlass import cgroups

BUSYBOX = Path("/bin/busybox")
SPEC = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
PROCESS = "types.containerd.io/opencontainers/runtime-spec/1/Process"
PATIENCE = 10.0
"""Seconds that what was in a control group may take to end."""

APPLETS = ("sh", "sleep", "true", "echo", "seq")


def make_root(root: Path) -> None:
    """Make a root file system; skips the case where there is no busybox."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed; apt install busybox-static")
    for name in ("bin", "proc", "dev", "sys", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy2(BUSYBOX, root / "bin/busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")


def process(argv: Sequence[str]) -> dict[str, object]:
    """Return a process of a spec."""
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": list(argv),
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")},
    }


def spec(argv: Sequence[str], root: str, cgroup: str) -> bytes:
    """Return a spec that runs ``argv``, in a cgroup of that path."""
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
    ]
    kinds = ("pid", "ipc", "uts", "mount", "network")
    document = {
        "ociVersion": "1.0.2",
        "process": process(argv),
        "root": {"path": root},
        "hostname": "box",
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "cgroupsPath": cgroup,
            "resources": {"devices": [{"allow": True, "access": "rwm"}]},
        },
    }
    return json.dumps(document).encode()


def remove_group(namespace: str) -> None:
    """Remove the control group that those of a namespace's containers were in, which runtimes leave."""
    cgroups.remove_within([f"{place}/{namespace}" for place, _, _ in cgroups.hierarchies()], PATIENCE)


def process_json(argv: Sequence[str]) -> bytes:
    """Return a process as an exec has it."""
    return json.dumps(process(argv)).encode()
