"""The task manager with the real zygote, the real shim and a real runc."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime_v2.harness import SPEC_TYPE, Daemon, daemon, event_sink, eventually
from windlass import errors
from windlass.containers import Container
from windlass.mounts import Mount
from windlass.shims import ForkedShim
from windlass.tasks import IO, CreateOptions, Status
from windlass.values import Payload
from windlass_shim_runc import plugin as shim_plugin
from windlass_zygote.spawner import ForkingZygote

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="containers need root on Linux"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed: apt install runc"),
    pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="busybox is missing: apt install busybox-static"),
]

RUNC = "io.containerd.runc.v2"
PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
OPTIONS_TYPE = "containerd.runc.v1.Options"


@pytest.fixture
def zygote() -> Iterator[ForkingZygote]:
    """A zygote with the shim in it."""
    zygote = ForkingZygote()
    zygote.start()
    yield zygote
    zygote.close()


@pytest.fixture
def shims() -> dict[str, ForkedShim]:
    """The plugin of the shim."""
    return {"runc": shim_plugin.init(None)}  # type: ignore[arg-type] # it asks its context nothing


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A root filesystem with busybox in it."""
    rootfs = tmp_path / "image"
    for name in ("bin", "proc", "dev", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    for applet in ("sh", "true", "sleep", "cat", "echo"):
        (rootfs / "bin" / applet).symlink_to("busybox")
    return rootfs


@pytest.fixture
async def topics(tmp_path: Path) -> AsyncIterator[list[str]]:
    """The topics of the events that shims send."""
    found: list[str] = []
    async with event_sink(str(tmp_path / "w.sock.ttrpc"), found):
        yield found


@pytest.fixture
async def windlass(
    tmp_path: Path, zygote: ForkingZygote, shims: dict[str, ForkedShim], topics: list[str]
) -> AsyncIterator[Daemon]:
    """A daemon; afterwards nothing of its tasks is mounted."""
    async with daemon(tmp_path, zygote, shims) as running:
        yield running
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def box(command: list[str], tmp_path: Path) -> Container:
    """A container with a spec that is runc's own, less what needs a terminal."""
    id = f"w{uuid.uuid4().hex[:12]}"
    where = tmp_path / f"spec-{id}"
    where.mkdir()
    subprocess.run(["runc", "spec"], cwd=where, check=True)
    spec = json.loads((where / "config.json").read_text())
    spec["process"]["terminal"] = False
    spec["process"]["args"] = command
    spec["root"] = {"path": "rootfs", "readonly": False}
    spec["linux"]["cgroupsPath"] = f"/windlass-test/{id}"
    root = str(tmp_path / "runc")
    # Options.root, field 7: the runtime's own state stays in the test's directory
    options = Payload(OPTIONS_TYPE, b"\x3a" + bytes([len(root)]) + root.encode())
    return Container(id, runtime=RUNC, runtime_options=options, spec=Payload(SPEC_TYPE, json.dumps(spec).encode()))


def bind(image: Path) -> CreateOptions:
    """Mount the image as the root filesystem."""
    return CreateOptions(rootfs=(Mount("bind", str(image), ("rbind", "rw")),))


async def test_a_container_runs_and_its_exit_code_arrives(
    windlass: Daemon, image: Path, tmp_path: Path, topics: list[str]
) -> None:
    """Create, wait, start, delete; and nothing is left."""
    tasks, made = windlass.tasks, box(["/bin/sh", "-c", "exit 7"], tmp_path)

    pid = await tasks.create("test", made, bind(image))
    waiting = asyncio.create_task(tasks.wait("test", made.id))
    assert (await tasks.get("test", made.id)).status == Status.CREATED
    assert await tasks.start("test", made.id) == pid
    assert (await waiting).status == 7
    exit = await tasks.delete("test", made.id)

    assert (exit.pid, exit.status) == (pid, 7)
    assert windlass.bundles == windlass.works == []
    await eventually(lambda: len(topics) == 4)
    assert topics == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    assert not windlass.sockets
    with pytest.raises(errors.NotFound):
        await tasks.get("test", made.id)
