"""Windlass on a fresh Debian 12: installed, upgraded under containers that run, and removed without a trace.

By scripts/install and as a Debian package. Each test has a system of its own (scripts/fresh-debian).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import TREE

FRESH = TREE / "scripts/fresh-debian"
MINUTES = 60

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts and containers"),
    pytest.mark.skipif(not Path("/usr/bin/python3.11").exists(), reason="packages are made on Debian 12"),
    pytest.mark.timeout(15 * MINUTES),
]

SCRIPTS = Path(__file__).parent / "installing"


def run(script: str, *binds: tuple[Path, str]) -> list[str]:
    """Run a script on a fresh system and return what it has checked."""
    options = [word for here, there in binds for word in ("--bind", f"{here}:{there}")]
    command = [str(FRESH), *options, "bash", f"/windlass/{(SCRIPTS / script).relative_to(TREE)}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * MINUTES)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return [line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith("ok ")]


@pytest.fixture(scope="module")
def debian() -> None:
    """The system, from the mirrors of this machine; it is kept for later runs."""
    done = subprocess.run([str(FRESH), "--fetch"], capture_output=True, text=True, timeout=10 * MINUTES)
    if done.returncode:
        pytest.skip(f"Debian 12 cannot be fetched: {done.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module")
def built(debian: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels, and a Debian package, of this tree."""
    place = tmp_path_factory.mktemp("built")
    command = [str(TREE / "scripts/build"), "--deb", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * MINUTES)
    if "pip could not get them" in done.stderr:
        pytest.skip("the wheels that ours need cannot be fetched from here")
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def later(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package, of a version that comes after."""
    place = tmp_path_factory.mktemp("later")
    tree = place / "tree"
    [package] = built.glob("*.deb")
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("Version: 0.1.0", "Version: 0.1.1"))
    [version] = tree.glob("opt/windlass/lib/python3*/site-packages/windlass/__init__.py")
    version.write_text(version.read_text().replace("0.1.0", "0.1.1"))
    for compiled in version.parent.glob("__pycache__/__init__*"):
        compiled.unlink()
    name = package.name.replace("0.1.0", "0.1.1")
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, place / name], check=True, capture_output=True
    )
    shutil.rmtree(tree)
    return place


def test_a_package_is_installed_upgraded_removed_and_purged(built: Path, later: Path) -> None:
    """A container keeps its process through all of that; what the administrator wrote is kept until the purge."""
    assert run("package.sh", (built, "/built"), (later, "/later")) == [
        "installed",
        "runs without writing to its files",
        "upgraded, configuration kept",
        "the old daemon serves during the upgrade",
        "the new daemon serves the old shim",
        "a container outlives the package",
        "removed",
        "a purge spares data of containers that run",
        "a later installation finds it",
        "nothing is left",
    ]


def test_the_script_installs_upgrades_and_removes(built: Path) -> None:
    """From wheels, without any network; it refuses what would lose something, and says what to do."""
    assert run("script.sh", (built, "/built")) == [
        "installed",
        "runs without writing to its files",
        "the old daemon serves during the upgrade",
        "the new daemon serves the old shim",
        "containers are not left by accident",
        "a daemon is not removed while it runs",
        "data stays",
    ]


def test_a_part_of_windlass_says_how_to_install_the_rest(built: Path) -> None:
    """The kernel alone has no plugin, and with plugins but no server no client could connect: exit code 1."""
    assert run("part.sh", (built, "/built")) == ["kernel", "no server", "whole"]


def test_a_new_users_hour(built: Path) -> None:
    """From the pages alone: web server, compose, upgrade, restart, adoption of a containerd, and nothing left."""
    command = [str(TREE / "scripts/newcomer"), str(built)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=14 * MINUTES)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1].startswith("ok uninstall: nothing is left")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory whose name is short enough for sockets."""
    path = Path(f"/tmp/windlass-install-{os.getpid()}")
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="systemd is not installed; apt install systemd"
)
def test_a_client_starts_the_daemon_by_its_socket(scratch: Path) -> None:
    """As windlass.socket does: the sockets are there before the daemon is, and stay when it ends."""
    sockets = [f"{scratch}/w.sock", f"{scratch}/w.sock.ttrpc"]
    (scratch / "config.toml").write_text("")
    paths = ["-c", f"{scratch}/config.toml", "--root", f"{scratch}/root", "--state", f"{scratch}/state"]
    program = [str(Path(sys.executable).parent / "windlassd"), *paths, "--address", sockets[0]]
    listen = [word for each in sockets for word in ("-l", each)]
    with (scratch / "log").open("w") as log:
        process = subprocess.Popen(["systemd-socket-activate", *listen, *program], stderr=log)
    try:
        deadline = time.monotonic() + MINUTES
        while not all(Path(each).exists() for each in sockets):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not (scratch / "root").exists()
        client = [str(Path(sys.executable).parent / "windlass"), "-a", sockets[0], "version"]
        done = subprocess.run(client, capture_output=True, text=True, timeout=MINUTES)
        assert done.returncode == 0, done.stderr + (scratch / "log").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(MINUTES) == 0
        assert all(Path(each).is_socket() for each in sockets)
        assert "in use" not in (scratch / "log").read_text()
    finally:
        process.kill()
        process.wait()
