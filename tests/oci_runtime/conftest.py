"""A runtime for each test; what it leaves makes the test fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from oci_runtime.bundles import Runtime

from windlass_conformance.boxes import BUSYBOX
from windlass_linux import cgroups


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed; apt-get install busybox-static")
    if len(os.listdir("/proc/self/task")) > 1:
        pytest.skip("this process has threads, which a clone of it lacks; run tests/oci_runtime alone")
    runtime = Runtime(tmp_path)
    yield runtime
    runtime.close()
    reap()
    places = [f"{place}/windlass-oci-{os.getpid()}" for place, _, _ in cgroups.hierarchies()]
    assert cgroups.remove_within(places) == []


def reap() -> None:
    """Take what is left of processes of containers that could not be made: a shim's keeper does."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
