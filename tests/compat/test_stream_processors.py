"""An image with encrypted layers, unpacked for `ctr` and `windlass` by a daemon that knows a program for them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.conftest import require_foreign_tools
from compat.images import Archive, busybox_layer, layer
from compat.machines import Machine

IMAGE = "docker.io/library/secret:1"
WINDLASS = [sys.executable, "-c", "import sys; from windlass_client.cli import main; sys.exit(main())"]
DECRYPT = "tr '\\\\000-\\\\377' '\\\\200-\\\\377\\\\000-\\\\177'"
ENCRYPTED = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"


def seal(data: bytes) -> bytes:
    """Encrypt, as a toy does."""
    return data.translate(bytes(range(128, 256)) + bytes(range(128)))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    layers = [busybox_layer(), layer({"data/secret": b"secret"}, ("data",))]
    return Archive(tmp_path_factory.mktemp("image") / "secret.tar", IMAGE, layers, seal)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    require_foreign_tools()
    machine = Machine("windlass", tmp_path)
    try:
        yield machine
    finally:
        machine.close()


def load(machine: Machine, tool: str, archive: Archive) -> subprocess.CompletedProcess[str]:
    if tool == "ctr":
        return machine.try_ctr("images", "import", str(archive.path))
    command = [*WINDLASS, "-a", machine.address, "-n", machine.namespace, "image", "import", str(archive.path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def configure(machine: Machine, script: str) -> None:
    machine.configure(
        f'[stream_processors."toy"]\naccepts = ["{ENCRYPTED}"]\nreturns = "{ENCRYPTED.removesuffix("+encrypted")}"\n'
        f'path = "sh"\nargs = ["-c", "{script}"]\nenv = ["KEY=toy"]'
    )


@pytest.mark.parametrize("tool", ["ctr", "windlass"])
def test_encrypted_layers_are_unpacked(machine: Machine, archive: Archive, tool: str) -> None:
    """And a container runs on them."""
    configure(machine, f'test \\"$KEY\\" = toy && {DECRYPT}')
    machine.start()
    done = load(machine, tool, archive)
    assert done.returncode == 0, done.stderr
    assert machine.ctr("run", "--rm", IMAGE, "box", "/bin/cat", "/data/secret") == "secret"


@pytest.mark.parametrize("tool", ["ctr", "windlass"])
def test_what_the_program_says_reaches_the_client(machine: Machine, archive: Archive, tool: str) -> None:
    """With its name; nothing is left of the layer."""
    configure(machine, "echo no key for this image >&2; exit 5")
    machine.start()
    done = load(machine, tool, archive)
    assert done.returncode != 0
    assert "stream processor toy exited with status 5: no key for this image" in done.stderr
    assert not machine.rows("snapshots", "ls")


def test_the_program_of_the_defaults_is_missed_by_name(machine: Machine, archive: Archive) -> None:
    """ocicrypt's, which containerd's defaults name too."""
    machine.start()
    done = load(machine, "ctr", archive)
    assert "there is no program ctd-decoder; install it" in done.stderr
