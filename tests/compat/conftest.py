"""Fixtures for driving Debian's `ctr` against Windlass and against containerd, which must answer alike."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.cri_daemon import CriDaemon, running_cri
from compat.images import Archive, busybox_layer
from compat.machines import Machine, oci_runtime

from windlass_conformance.boxes import BUSYBOX

IMAGE = "docker.io/library/busy:1"


def require_foreign_tools() -> None:
    """Skip, naming what is missing."""
    if os.geteuid() != 0:
        pytest.skip("needs root: containers, mounts and cgroups")
    for tool, package in (("ctr", "containerd"), ("containerd", "containerd"), ("runc", "runc")):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; apt install {package}")
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed; apt install busybox-static")


def require_criu(program: str) -> None:
    """Skip a test where criu is not installed, or does not work: with this kernel, or with what others have mounted."""
    path = shutil.which(program) if program else None
    if path is None:
        pytest.skip("criu is not installed; apt install criu, version 4.2 or later for Linux 6.18")
    done = subprocess.run([path, "check"], capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"{path} check: {(done.stderr.splitlines() or ['failed'])[0][:200]}")


@pytest.fixture(scope="session")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """An image with a shell."""
    require_foreign_tools()
    return Archive(tmp_path_factory.mktemp("image") / "busy.tar", IMAGE, [busybox_layer()])


def run_machine(kind: str, directory: Path, image: Archive, more: str = "") -> Iterator[Machine]:
    """Yield a machine that has the image, with ``more`` lines of configuration; all of it is gone afterwards."""
    machine = Machine(kind, directory)
    machine.configure(more)
    try:
        machine.start()
        machine.ctr("images", "import", str(image.path))
        yield machine
    finally:
        machine.close()


@pytest.fixture(scope="session")
def windlass(tmp_path_factory: pytest.TempPathFactory, busy: Archive) -> Iterator[Machine]:
    """windlassd, for all tests of the session."""
    yield from run_machine("windlass", tmp_path_factory.mktemp("w"), busy)


@pytest.fixture(scope="session")
def windlass_own(tmp_path_factory: pytest.TempPathFactory, busy: Archive) -> Iterator[Machine]:
    """windlassd with its own OCI runtime, for all tests of the session."""
    more = "" if oci_runtime() else oci_runtime("windlass-oci")
    yield from run_machine("windlass", tmp_path_factory.mktemp("o"), busy, more)


@pytest.fixture(scope="session")
def containerd(tmp_path_factory: pytest.TempPathFactory, busy: Archive) -> Iterator[Machine]:
    """Debian's containerd, for all tests of the session."""
    yield from run_machine("containerd", tmp_path_factory.mktemp("c"), busy)


@pytest.fixture(params=["windlass", "containerd"])
def machine(request: pytest.FixtureRequest) -> Machine:
    """Each of the two in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Machine)
    return found


@pytest.fixture
def box(machine: Machine) -> Iterator[str]:
    """An id for a container, which is gone afterwards."""
    name = machine.new_id()
    yield name
    machine.remove(name)


@pytest.fixture
def running(machine: Machine, box: str) -> str:
    """The id of a container that sleeps."""
    machine.ctr("run", "-d", IMAGE, box, "/bin/sleep", "1000")
    return box


@pytest.fixture(scope="module")
def cri_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriDaemon]:
    """windlassd with CRI, for the tests of a file."""
    with running_cri(tmp_path_factory.mktemp("cri")) as daemon:
        yield daemon
