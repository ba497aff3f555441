"""What a shell completes: commands, options, and names that the daemon knows."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from client.conftest import FakeDaemon

from windlass_api.containerd.services.containers.v1 import containers_pb2
from windlass_api.containerd.services.images.v1 import images_pb2


async def complete(address: str, line: str) -> list[str]:
    """Return what bash would be offered after ``line``."""
    words = line.split(" ")
    env = {
        **os.environ,
        "_WINDLASS_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "WINDLASS_ADDRESS": address,
    }
    command = [sys.executable, "-c", "from windlass_client.cli import main; main()"]
    done = await asyncio.to_thread(subprocess.run, command, env=env, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return [each.partition(",")[2] for each in done.stdout.splitlines() if each]


@pytest.mark.parametrize("line", ["windlass exec w", "windlass rm w", "windlass kill -s 9 w", "windlass inspect w"])
async def test_names_of_containers(address: str, daemon: FakeDaemon, line: str) -> None:
    """Those of the daemon and namespace that the environment names."""
    daemon.containers = [containers_pb2.Container(id=id) for id in ("web-2", "web-1", "db")]
    assert await complete(address, line) == ["web-1", "web-2"]


@pytest.mark.parametrize("line", ["windlass run --rm e", "windlass image rm e", "windlass push x e"])
async def test_names_of_images(address: str, daemon: FakeDaemon, line: str) -> None:
    """Where an image is wanted that is here."""
    for name in ("example.org/a:1", "other.org/b:1"):
        daemon.images[name] = images_pb2.Image(name=name)
    assert await complete(address, line) == ["example.org/a:1"]


async def test_names_of_networks_and_volumes(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the client's own files; a network may also be the host's."""
    monkeypatch.setenv("NETCONFPATH", str(tmp_path))
    (tmp_path / "a.conflist").write_text('{"cniVersion":"1.0.0","name":"front","plugins":[{"type":"bridge"}]}')
    assert await complete(address, "windlass run --network ") == ["front", "host", "none"]
    assert await complete(address, "windlass network rm fr") == ["front"]
    assert await complete(address, "windlass volume rm no-such-volume") == []


async def test_commands_and_options(address: str) -> None:
    """As click has them; a command that was typed before is known."""
    assert await complete(address, "windlass plug") == ["plugins", "plugin"]
    assert await complete(address, "windlass run --sn") == ["--snapshotter"]


async def test_a_daemon_that_is_not_there_completes_nothing() -> None:
    """And says nothing, since that would appear in the middle of a line."""
    assert await complete("/nonexistent/d.sock", "windlass exec w") == []
