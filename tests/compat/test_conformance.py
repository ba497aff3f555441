"""The suites through the API of a daemon, ours and containerd's, and what they find different in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from compat.conftest import require_foreign_tools
from compat.machines import Machine

ONLY_SHA256 = "its writers compute sha256, and refuse blobs that are named by another digest"
OLD_TIME = "its answers to a write have the time at which the writer was opened"
NO_TOTAL = "a writer that is opened again without a size forgets the one it had"
NO_CODE = "a filter that does not parse, an empty key and an unknown media type are errors without a code"
CUT = "it makes a device of a number that is cut to what fits"
LATER = "later versions have it"

CONTAINERD = {
    "test_other_digest_algorithms_are_honoured[sha384]": ONLY_SHA256,
    "test_other_digest_algorithms_are_honoured[sha512]": ONLY_SHA256,
    "test_status_follows_every_write": OLD_TIME,
    "test_ingest_continues_where_it_was_closed": OLD_TIME,
    "test_another_total_starts_the_ingest_again": NO_TOTAL,
    "test_a_filter_that_does_not_parse_is_refused": NO_CODE,
    "test_a_key_must_not_be_empty": NO_CODE,
    "test_an_unknown_type_is_left_to_others": NO_CODE,
    "test_impossible_devices_are_refused[negative]": CUT,
    "test_impossible_devices_are_refused[huge]": CUT,
    "test_an_expired_image_holds_nothing": LATER,
    "test_a_back_reference_holds": LATER,
    "test_resources_are_held_once": LATER,
}
"""Where containerd 1.6.20 is different, and why; docs/conformance.md has the list for readers."""


def certify(directory: Path, *arguments: str) -> list[dict[str, str]]:
    """Run the installed suites as a user does and return the report's cases."""
    report = directory / "report.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    asked = ["--pyargs", "windlass_conformance", *arguments, "--conformance-report", str(report)]
    environment = {**os.environ, "PYTEST_DEBUG_TEMPROOT": str(directory), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        [*command, *asked], cwd=directory, capture_output=True, text=True, timeout=110, env=environment
    )
    assert report.exists(), done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["windlass-conformance"]
    cases: list[dict[str, str]] = found["cases"]
    return cases


def failures(cases: Sequence[dict[str, str]]) -> dict[str, str]:
    return {case["name"]: case["reason"] for case in cases if case["outcome"] == "failed"}


@pytest.fixture(scope="module", params=["windlass", "containerd"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A daemon."""
    require_foreign_tools()
    machine = Machine(request.param, tmp_path_factory.mktemp(request.param))
    try:
        machine.start()
        yield machine
    finally:
        machine.close()


@pytest.mark.parametrize(
    "what",
    [
        ["--snapshotter", "overlayfs", "--content"],
        ["--snapshotter", "native"],
        ["--differ", "--metadata", "--events"],
        ["--runtime", "io.containerd.runc.v2"],
    ],
    ids=["overlayfs", "native", "others", "runtime"],
)
def test_a_daemon_keeps_the_promises(machine: Machine, what: list[str], tmp_path: Path) -> None:
    """All of them; containerd but for the differences that are listed, each of which is one."""
    cases = certify(tmp_path, "--address", machine.address, *what)

    suites = {word.removeprefix("--") for word in what if word.startswith("--")}
    assert {case["suite"] for case in cases} == suites
    assert {case["level"] for case in cases} == {"daemon"}
    assert all(case["promise"] for case in cases)
    assert all(case["reason"] for case in cases if case["outcome"] == "skipped")
    asked = {case["name"] for case in cases}
    known = {name: why for name, why in CONTAINERD.items() if name in asked and machine.kind == "containerd"}
    found = failures(cases)
    assert not {name: reason for name, reason in found.items() if name not in known}
    assert set(found) == set(known), "a difference that is listed is none any more"
    left = machine.ctr("namespaces", "ls", "-q").split()
    assert not [name for name in left if name.startswith("conformance-")]


@pytest.mark.parametrize("binary", ["containerd-shim-runc-v2", "containerd-shim-windlass-v1"])
def test_a_shim_keeps_the_promises(binary: str, tmp_path: Path) -> None:
    """By its binary, without any daemon; containerd's does not say which kind of error a taken ID is."""
    require_foreign_tools()
    ours = Path(sys.executable).with_name(binary)
    path = ours if ours.exists() else shutil.which(binary)
    if path is None:
        pytest.skip(f"{binary} is not installed; apt install containerd")
    cases = certify(tmp_path, f"--runtime={path}")
    assert {(case["suite"], case["level"]) for case in cases} == {("runtime", "socket")}
    known = {"test_an_id_is_used_once"} if binary == "containerd-shim-runc-v2" else set()
    assert set(failures(cases)) == known


def test_our_sandbox_controller_keeps_the_promises(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """containerd 1.6 has none."""
    require_foreign_tools()
    machine = Machine("windlass", tmp_path_factory.mktemp("sandbox"))
    try:
        machine.start()
        cases = certify(tmp_path, f"--address={machine.address}", "--sandbox")
    finally:
        machine.close()
    assert {(case["suite"], case["level"]) for case in cases} == {("sandbox", "daemon")}
    assert not failures(cases)


def test_nothing_named_is_told_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "windlass_conformance"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert "windlass_conformance: name what to certify, such as --snapshotter unix:///" in done.stderr
