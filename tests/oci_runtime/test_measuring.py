"""What a container uses: the fields and the sense of runc's `events --stats`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from oci_runtime.bundles import Box, Runtime, spec

from windlass_linux import cgroups as host
from windlass_oci_runtime import measuring

version_1 = pytest.mark.skipif(
    all(kind != "cgroup" for _, kind, _ in host.hierarchies()), reason="this host has no control groups of version 1"
)


def measured(places: Sequence[str]) -> Any:  # Any: JSON
    """Return the document as a client reads it."""
    return json.loads(json.dumps(measuring.measure(places)))


@pytest.fixture
def box(runtime: Runtime) -> Iterator[Box]:
    limits = {"memory": {"limit": 64 << 20}, "pids": {"limit": 50}, "cpu": {"cpus": "0", "mems": "0"}}
    box = runtime.create(spec("sh", "-c", "while true; do true; done", resources=limits))
    box.start()
    yield box
    box.kill()


@version_1
def test_a_busy_container_is_measured(box: Box) -> None:
    places = box.container.read()["cgroups"]
    time.sleep(0.05)
    first = second = measured(places)
    for _ in range(500):
        second = measured(places)
        if second["cpu"]["usage"]["total"] > first["cpu"]["usage"]["total"]:
            break
        time.sleep(0.01)
    usage = second["cpu"]["usage"]
    assert usage["total"] > first["cpu"]["usage"]["total"]
    # On the first processor, to which it is bound.
    assert len(usage["percpu"]) == len(usage["percpu_kernel"]) == len(usage["percpu_user"])
    assert usage["percpu_user"][0] > 0
    assert second["memory"]["usage"]["limit"] == 64 << 20
    assert second["pids"] == {"current": 1, "limit": 50}
    assert (second["cpuset"]["cpus"], second["cpuset"]["mems"]) == ([0], [0])


def test_groups_that_are_gone_use_nothing() -> None:
    used = measured(["/sys/fs/cgroup/windlass-no-such", "/sys/fs/cgroup/neither"])
    assert used["cpu"]["usage"]["total"] == used["memory"]["usage"]["usage"] == used["pids"]["current"] == 0


def test_huge_pages_are_listed_by_their_size(tmp_path: Path) -> None:
    for size in ("2MB", "1GB"):
        (tmp_path / f"hugetlb.{size}.usage_in_bytes").write_text("4096\n")
        (tmp_path / f"hugetlb.{size}.failcnt").write_text("3\n")
    used = measured([str(tmp_path), str(tmp_path)])["hugetlb"]
    assert used == {size: {"usage": 4096, "max": 0, "failcnt": 3} for size in ("1GB", "2MB")}
