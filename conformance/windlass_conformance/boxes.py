"""Containers for the cases of a runtime: a root file system with busybox, and the spec that runs it."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from windlass_linux import cgroups

PT_INTERP = 3
SPEC = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
PROCESS = "types.containerd.io/opencontainers/runtime-spec/1/Process"
PATIENCE = 10.0
"""Seconds that what was in a control group may take to end."""

APPLETS = ("sh", "sleep", "true", "echo", "seq")


def static_busybox() -> Path:
    """Return a busybox that needs no library of its root file system, or a path where there is none."""
    places = (Path(sys.prefix, "bin/busybox"), Path("/bin/busybox"))
    return next((place.resolve() for place in places if is_static(place)), places[0])


def is_static(path: Path) -> bool:
    """Return whether a program starts without a loader, which its root file system would need."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    # elf(5), of 64 bits: where the table of segments begins, the size of an entry, how many there are.
    if len(head) < 64 or head[:5] != b"\x7fELF\x02":
        return False
    order = "<" if head[5] == 1 else ">"
    (start,), (size, count) = struct.unpack_from(f"{order}Q", head, 32), struct.unpack_from(f"{order}HH", head, 54)
    entries = [head[at : at + 4] for at in range(start, start + size * count, size or 1)]
    loader = struct.pack(f"{order}I", PT_INTERP)
    return bool(entries) and all(len(entry) == 4 and entry != loader for entry in entries)


BUSYBOX = static_busybox()


def make_root(root: Path) -> None:
    """Make a root file system; skip the case if there is no busybox."""
    if not BUSYBOX.exists():
        pytest.skip("no static busybox is installed; apt install busybox-static")
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
    """Remove the parent control group of a namespace's containers, which runtimes leave behind."""
    cgroups.remove_within([f"{place}/{namespace}" for place, _, _ in cgroups.hierarchies()], PATIENCE)


def process_json(argv: Sequence[str]) -> bytes:
    """Return the process of an exec as JSON."""
    return json.dumps(process(argv)).encode()
