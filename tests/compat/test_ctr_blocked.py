"""A process that the kernel does not let die: its task answers meanwhile, and can be deleted once it is let go."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from compat.conftest import IMAGE
from compat.machines import Machine, eventually

from windlass_api.containerd.services.tasks.v1 import tasks_pb2, tasks_pb2_grpc

TOOLS = ("mkfs.ext4", "fsfreeze", "losetup")
WRITING = "while :; do echo x >>/data/file; sleep 0.02; done"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of its own, which is thawed and gone afterwards."""
    for tool in TOOLS:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: apt install e2fsprogs util-linux")
    image, point = tmp_path / "image", tmp_path / "disk"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, point], capture_output=True).returncode:
        pytest.skip("no loop device can be mounted here")
    try:
        yield point
    finally:
        subprocess.run(["fsfreeze", "-u", point], capture_output=True)
        subprocess.run(["umount", "-l", point], check=True)


def state(pid: int) -> str:
    """Return the letter of a process's state, "" when it has gone (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_process_in_uninterruptible_sleep_holds_up_nobody(windlass: Machine, disk: Path) -> None:
    """Kill and delete answer within their deadlines, the latter by a refusal; in the end the status is 137."""
    box, metadata = windlass.new_id(), (("containerd-namespace", windlass.namespace),)
    mount = f"type=bind,src={disk},dst=/data,options=rbind:rw"
    windlass.ctr("run", "-d", "--mount", mount, IMAGE, box, "/bin/sh", "-c", WRITING)
    pid = int(windlass.rows("tasks", "ls")[box][1])
    try:
        eventually((disk / "file").exists)
        subprocess.run(["fsfreeze", "-f", disk], check=True)
        eventually(lambda: state(pid) == "D")
        with grpc.insecure_channel(f"unix://{windlass.address}") as channel:
            tasks = tasks_pb2_grpc.TasksStub(channel)
            tasks.Kill(tasks_pb2.KillRequest(container_id=box, signal=9), metadata=metadata, timeout=10)
            with pytest.raises(grpc.RpcError) as caught:
                tasks.Delete(tasks_pb2.DeleteTaskRequest(container_id=box), metadata=metadata, timeout=10)
        assert f"cannot delete a running container: {box}" in (caught.value.details() or "")
        assert state(pid) == "D"
        assert windlass.status(box) == "RUNNING"
    finally:
        subprocess.run(["fsfreeze", "-u", disk], check=True)

    eventually(lambda: windlass.status(box) == "STOPPED")
    assert "exit code 137" in windlass.try_ctr("tasks", "rm", box).stderr
    windlass.remove(box)
