"""A whole container on a host that has version 2 of control groups only, as most have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from windlass_conformance.boxes import BUSYBOX

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="busybox is not installed; apt-get install busybox-static"),
    pytest.mark.skipif("cgroup2" not in Path("/proc/filesystems").read_text(), reason="Linux has no version 2"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed"),
]


def test_a_container_lives_on_version_2_alone(tmp_path: Path) -> None:
    """Its hierarchy is mounted over the host's in a mount namespace of its own; Linux may lack its controllers."""
    tests = Path(__file__).parents[1]
    command = ["unshare", "-m", sys.executable, "-m", "oci_runtime.on_version_2", str(tmp_path)]
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["refuses"][0] == seen["allows"][0] == 0
    # Its own group is the root that it sees, and of all devices it may use the usual ones.
    refused = "head: /dev/kmsg: Operation not permitted"
    assert seen["refuses"][1].splitlines()[-3:] == ["0::/", "/sys/fs/cgroup/cgroup.procs", refused]
    assert seen["allows"][1].splitlines()[-3:] == ["0::/", "/sys/fs/cgroup/cgroup.procs", "read"]
    assert seen["enter"].splitlines()[-1] == "0::/"
    assert seen["processes"]
    assert (seen["frozen True"], seen["frozen False"]) == ("paused", "running")
    assert "network.classID needs control groups of version 1" in seen["refused"]
    assert "limit no.such needs the control group controller no, which is not here" in seen["undone"]
    assert (seen["changed"], seen["depth"]) == ("", ["7", "7", "5"])
    assert seen["used"]["usage"]["total"] > 0
    assert (seen["end"], seen["left"]) == (-9, False)
