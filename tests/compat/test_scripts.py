"""What `scripts/` does to the machine it runs on: nothing that its user would not expect."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from house import TREE

from windlass_conformance.boxes import BUSYBOX, is_static

APT = """#!/bin/sh
echo "$@" >>"{log}"
if [ ! -e "{log}.tried" ]; then
    touch "{log}.tried"
    echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1" >&2
    exit 100
fi
case " $* " in *" download "*) cp "{package}" .;; esac
"""

needs_dpkg = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("dpkg-deb") is None, reason="installing needs root, on Debian"
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with an environment that is up to date, on a machine whose apt-get only writes down what it is asked."""
    for name in ("a/pyproject.toml", "a/b/pyproject.toml", "requirements-dev.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    shutil.copytree(TREE / "scripts", tmp_path / "scripts")
    for directory in (".venv/bin", "bin", "files/DEBIAN", "files/bin"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    (tmp_path / ".venv/windlass-stamp").write_text("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n")
    (tmp_path / "files/DEBIAN/control").write_text(
        "Package: busybox-static\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    )
    shutil.copy(BUSYBOX if BUSYBOX.exists() else "/bin/true", tmp_path / "files/bin/busybox")
    package = tmp_path / "busybox-static_1_all.deb"
    subprocess.run(["dpkg-deb", "-b", str(tmp_path / "files"), str(package)], check=True, capture_output=True)
    apt = tmp_path / "bin/apt-get"
    apt.write_text(APT.format(log=tmp_path / "asked", package=package))
    apt.chmod(0o755)
    return tmp_path


def setup(tree: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run scripts/setup and return how it ended, and what apt-get was asked."""
    path = f"{tree}/bin:{os.environ['PATH']}"
    done = subprocess.run(
        [tree / "scripts/setup", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": path},
    )
    asked = tree / "asked"
    return done, asked.read_text().splitlines() if asked.exists() else []


@needs_dpkg
def test_setup_removes_nothing_and_waits_for_its_turn(tree: Path) -> None:
    """Another apt-get at work is waited for, and a package that would replace another one is not installed."""
    done, asked = setup(tree, "no-such-package-of-windlass")

    assert done.returncode == 0, done.stderr
    assert "waiting for another apt-get" in done.stderr
    assert len(asked) == 2 and asked[0] == asked[1]
    assert {"install", "--no-remove", "DPkg::Lock::Timeout=300"} <= set(asked[0].split())


@needs_dpkg
def test_setup_does_not_replace_the_machines_busybox(tree: Path) -> None:
    """Where it is not a static one, a static one is unpacked into the environment; nothing is installed."""
    if is_static(Path("/bin/busybox")):
        # as on a machine whose busybox is not a static one
        script = (tree / "scripts/demo_image.py").read_text()
        (tree / "scripts/demo_image.py").write_text(script.replace('Path("/bin/busybox")', 'Path("/bin/true")'))

    done, asked = setup(tree, "busybox-static")
    again, _ = setup(tree, "busybox-static")

    assert (done.returncode, again.returncode) == (0, 0), done.stderr
    assert [words.split()[-2:] for words in asked] == [["download", "busybox-static"]] * 2
    assert (tree / ".venv/bin/busybox").resolve() == tree / ".venv/busybox/bin/busybox"


def test_an_image_is_not_made_of_a_program_that_needs_a_loader(tmp_path: Path) -> None:
    """A busybox with libraries would start nowhere: the error says so at once."""
    archive = tmp_path / "image.tar"
    command = [sys.executable, str(TREE / "scripts/demo_image.py"), str(archive), "a:1", "/bin/true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert "/bin/true is not a static busybox" in done.stderr
    assert not archive.exists()


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF\x02" + b"\xff" * 59, b"\x7fELF\x01" + bytes(200)])
def test_what_is_no_program_is_not_static(tmp_path: Path, data: bytes) -> None:
    """Whatever is in the file, there is an answer."""
    path = tmp_path / "x"
    path.write_bytes(data)
    assert not is_static(path)
