"""Runs containers where version 2 is the only hierarchy; in a mount namespace of its own, by test_version_2.

Writes what it has seen to its output, as one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from oci_runtime.bundles import Box, Runtime, Spec, spec

from windlass.errors import Error
from windlass_linux import cgroups as host
from windlass_oci_runtime import cgroups, changing, ending, measuring

MOUNTED = "/sys/fs/cgroup"
SEES = "cat /proc/self/cgroup; ls /sys/fs/cgroup/cgroup.procs; head -c 1 /dev/kmsg >/null && echo read; echo >/dev/null"
KMSG = {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}


def document(*arguments: str, **more: object) -> Spec:
    """Return a specification with a cgroup namespace, a mount of it, and a device that rules may allow."""
    namespaces = [{"type": each} for each in ("pid", "network", "mount", "ipc", "uts", "cgroup")]
    found = spec(*arguments, namespaces=namespaces, devices=[KMSG], **more)
    # Linux wants it of every reader of this device; with it, only the rules decide.
    sets = found["process"]["capabilities"]
    found["process"]["capabilities"] = {name: [*names, "CAP_SYSLOG"] for name, names in sets.items()}
    found["mounts"] += [
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {"destination": MOUNTED, "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    ]
    return found


def change(box: Box, resources: dict[str, object]) -> str:
    """Change limits, and return what the caller reads if that is refused."""
    try:
        changing.update(box.container, resources)
    except (Error, OSError) as error:
        return str(error)
    return ""


def life(runtime: Runtime) -> dict[str, Any]:
    """Run a container through all that control groups do for it."""
    box = runtime.create(document("sleep", "1000", resources={"unified": {"cgroup.max.depth": "7"}}))
    group = Path(box.container.read()["cgroups"][0])
    box.start()
    seen: dict[str, Any] = {"group": str(group), "depth": [(group / "cgroup.max.depth").read_text().strip()]}
    seen["enter"] = box.exec(["cat", "/proc/self/cgroup"])[1]
    seen["processes"] = cgroups.processes([str(group)]) == [box.pid]
    for frozen in (True, False):
        list(changing.pausing(box.container, frozen))
        seen[f"frozen {frozen}"] = box.container.status(box.container.read())
    seen["refused"] = change(box, {"unified": {"cgroup.max.depth": "3"}, "network": {"classID": 1}})
    seen["undone"] = change(box, {"unified": {"cgroup.max.depth": "3", "no.such": "1"}})
    seen["depth"].append((group / "cgroup.max.depth").read_text().strip())
    seen["changed"] = change(box, {"unified": {"cgroup.max.depth": "5"}})
    seen["depth"].append((group / "cgroup.max.depth").read_text().strip())
    seen["used"] = measuring.measure([str(group)])["cpu"]
    list(changing.pausing(box.container, True))
    ending.kill(box.container, 9, everybody=True)
    seen["end"] = box.end()
    seen["left"] = group.exists()
    return seen


def main(directory: str) -> None:
    """Mount version 2 over what the host has, and run."""
    subprocess.run(["umount", "-l", MOUNTED], check=True)
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", MOUNTED], check=True)
    runtime = Runtime(Path(directory))
    reading = [{"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}]
    try:
        seen = {
            "refuses": runtime.run(document("sh", "-c", SEES)),
            "allows": runtime.run(document("sh", "-c", SEES, resources={"devices": reading})),
            **life(runtime),
        }
    finally:
        host.remove_within([f"{MOUNTED}/windlass-oci-{os.getpid()}"])
    sys.stdout.write(json.dumps(seen))


main(sys.argv[1])
