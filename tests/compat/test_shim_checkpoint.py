"""Checkpoint and restore: with criu where the machine allows it, and what is said where not.

A criu newer than the distribution's is named by the environment variable CRIU.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from compat.conftest import require_criu
from shim_runc.harness import Shim, shims

from windlass import errors
from windlass_api.ttrpc.framing import Frame
from windlass_shim_runc import messages
from windlass_shim_runc.messages import Message

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="containers need root on Linux"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed: apt install runc"),
]

Make = Callable[..., Shim]
CRIU = os.environ.get("CRIU") or shutil.which("criu") or ""
COUNTING = ["/bin/sh", "-c", "n=0; while :; do n=$((n+1)); echo $n >/count; sleep 0.05; done"]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A maker of shims, whose containers are gone afterwards."""
    with shims(tmp_path) as maker:
        yield maker


@pytest.fixture(scope="module")
def criu() -> messages.AnyMessage:
    """Options with a criu that works here."""
    require_criu(CRIU)
    return options(criu_path=CRIU)


def options(**values: object) -> messages.AnyMessage:
    """Return runc's options."""
    return messages.pack(messages.Options(**values))


def checkpoint(shim: Shim, path: Path, **values: object) -> None:
    """Ask for a checkpoint."""
    request = messages.CheckpointTaskRequest(
        id=shim.id, path=str(path), options=messages.pack(messages.CheckpointOptions(**values))
    )
    shim.call(Message, "Checkpoint", request)


def count(shim: Shim) -> int:
    """Return how far the program has counted."""
    return int((shim.bundle / "rootfs" / "count").read_text() or 0)


def wait_for_count(shim: Shim, least: int) -> None:
    """Return once it has counted so far."""
    deadline = time.monotonic() + 10
    while not (shim.bundle / "rootfs" / "count").exists() or count(shim) < least:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def fake_runtime(directory: Path, body: str) -> str:
    """Write an executable called runc that runs ``body`` for checkpoints and is runc for all else."""
    program = directory / "fake" / "runc"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nfor word; do case "$word" in checkpoint|restore) {body};; esac; done\nexec runc "$@"\n'
    )
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("exit", [False, True])
def test_a_checkpoint_comes_back_to_life_in_another_container(
    make: Make, criu: messages.AnyMessage, tmp_path: Path, exit: bool
) -> None:
    """The program goes on counting where it was; the original runs on unless the checkpoint is its end."""
    shim, twin = make(), make("two")
    shim.create(COUNTING, options=criu)
    shim.start()
    wait_for_count(shim, 5)

    checkpoint(shim, tmp_path / "image", exit=exit)

    assert "checkpointed" in wait_topics(shim, "checkpointed")
    if exit:
        shim.wait()
        shim.delete()
    else:
        wait_for_count(shim, count(shim) + 3)
    reached = count(shim)
    assert (tmp_path / "image" / "inventory.img").exists()
    assert not (shim.bundle / "criu-work").exists()

    twin.make_bundle(COUNTING)
    request = messages.CreateTaskRequest(
        id="two", bundle=str(twin.bundle), checkpoint=str(tmp_path / "image"), options=criu
    )
    assert twin.call(messages.PidResponse, "Create", request).pid == 0
    assert twin.status().status == 1
    twin.rest()
    (twin.bundle / "rootfs" / "count").write_text("0\n")
    pid = twin.start()
    assert pid > 0
    wait_for_count(twin, 5)
    assert count(twin) <= reached + 1000
    assert (twin.status().status, twin.status().pid) == (2, pid)
    twin.exec("e", ["/bin/true"])
    twin.start("e")
    assert twin.wait("e") == 0
    twin.kill(9)
    assert twin.wait() == 137
    twin.delete()
    assert not (twin.state / "runc" / "test" / "two").exists()


def wait_topics(shim: Shim, topic: str) -> list[str]:
    """Return the topics once one has come."""
    shim.sink.wait_for(f"/tasks/{topic}")
    return shim.sink.topics


def test_output_flows_after_a_restore(make: Make, criu: messages.AnyMessage, tmp_path: Path) -> None:
    """The restored program writes to the new container's stdout."""
    program = ["/bin/sh", "-c", "while :; do echo tick; sleep 0.05; done"]
    shim, twin = make(), make("two")
    out = shim.fifo("out")
    shim.create(program, stdout=out, options=criu)
    shim.start()
    with open(out, "rb") as reader:
        assert reader.readline() == b"tick\n"
        checkpoint(shim, tmp_path / "image", exit=True)
    shim.wait()

    twin.make_bundle(program)
    twin_out = twin.fifo("out")
    request = messages.CreateTaskRequest(
        id="two", bundle=str(twin.bundle), checkpoint=str(tmp_path / "image"), stdout=twin_out, options=criu
    )
    twin.call(messages.PidResponse, "Create", request)
    twin.start()
    with open(twin_out, "rb") as reader:
        assert b"tick" in reader.readline()


def test_where_criu_refuses_its_reason_and_log_are_told_and_the_container_runs_on(make: Make, tmp_path: Path) -> None:
    """runc's criu fails: the error names criu and the log in the bundle."""
    body = (
        'while [ "$1" ] && [ "$1" != --work-path ]; do shift; done; '
        'echo "(00.01) Error (criu/vdso.c:1): vdso: no" >$2/dump.log; exit 1'
    )
    shim = make()
    shim.create(
        ["/bin/sleep", "1000"], options=options(binary_name=fake_runtime(tmp_path, body), criu_path=criu_at(tmp_path))
    )
    shim.start()

    with pytest.raises(errors.Error, match=r"checkpoint failed: .*criu said: .*vdso: no; its log is .*/criu-dump.log"):
        checkpoint(shim, tmp_path / "image")

    assert b"vdso" in (shim.bundle / "criu-dump.log").read_bytes()
    assert not (shim.bundle / "criu-work").exists()
    assert shim.status().status == 2


def criu_at(directory: Path) -> str:
    """Return an executable called criu that does nothing."""
    path = directory / "criu"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_without_criu_it_is_missed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAILED_PRECONDITION that says where it was looked for."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("runc", "sh"):
        (tools / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(tools))
    with shims(tmp_path) as make:
        shim = make()
        shim.create(["/bin/sleep", "1000"])
        shim.start()

        with pytest.raises(errors.FailedPrecondition, match=f"criu was not found in {tools}; install it"):
            checkpoint(shim, tmp_path / "image")
        with pytest.raises(errors.InvalidArgument, match="CriuPath '/opt/criu-4' must be an absolute path of a file"):
            make("two").create(["/bin/true"], options=options(criu_path="/opt/criu-4"))


def test_every_option_reaches_the_runtime(make: Make, tmp_path: Path) -> None:
    """CheckpointOptions and the task's criu paths become runc's flags."""
    told = tmp_path / "told"
    runtime = fake_runtime(tmp_path, f'echo "$@" >{told}; exit 0')
    shim = make()
    shim.create(
        ["/bin/sleep", "1000"],
        options=options(
            binary_name=runtime,
            criu_path=criu_at(tmp_path),
            criu_work_path=str(tmp_path / "work"),
            criu_image_path=str(tmp_path / "default"),
        ),
    )
    shim.start()

    shim.call(Message, "Checkpoint", messages.CheckpointTaskRequest(id=shim.id))
    assert f"--image-path {tmp_path}/default --work-path {tmp_path}/work --leave-running one" in told.read_text()
    checkpoint(
        shim,
        tmp_path / "image",
        exit=True,
        open_tcp=True,
        external_unix_sockets=True,
        terminal=True,
        file_locks=True,
        empty_namespaces=("network", "ipc"),
        cgroups_mode="soft",
        work_path=str(tmp_path / "mine"),
        parent_path="../parent",
    )

    flags = told.read_text().partition(" checkpoint ")[2].split()
    assert flags == [
        *("--image-path", f"{tmp_path}/image", "--work-path", f"{tmp_path}/mine"),
        *("--tcp-established", "--ext-unix-sk", "--shell-job", "--file-locks"),
        *("--empty-ns", "network", "--empty-ns", "ipc", "--manage-cgroups-mode", "soft"),
        *("--parent-path", "../parent", "one"),
    ]
    assert (tmp_path / "mine").is_dir()
    assert (tmp_path / "work").is_dir()


def test_bad_checkpoint_requests_are_refused(make: Make, tmp_path: Path) -> None:
    """Wrong state, relative or missing path, options of another kind."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    with pytest.raises(errors.Error, match="cannot checkpoint a created container: one"):
        checkpoint(shim, tmp_path / "image")
    shim.start()
    with pytest.raises(errors.InvalidArgument, match="checkpoint 'image' is not an absolute path"):
        checkpoint(shim, Path("image"))
    wrong = messages.CheckpointTaskRequest(id=shim.id, path="/x", options=options())
    with pytest.raises(errors.InvalidArgument, match=r"checkpoint options of type containerd\.runc.v1.Options"):
        shim.call(Message, "Checkpoint", wrong)
    other = make("two")
    with pytest.raises(errors.InvalidArgument, match="checkpoint '/no/such' is not a directory"):
        other.create(["/bin/true"], checkpoint="/no/such")


def is_open(fifo: str) -> bool:
    """Tell whether somebody has a FIFO open for reading, as a shim has those that it writes to."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        assert error.errno == errno.ENXIO
        return False
    return True


@pytest.mark.parametrize("starts", [False, True], ids=["not started", "start failed"])
def test_what_is_to_be_restored_has_no_stream_open(make: Make, tmp_path: Path, starts: bool) -> None:
    """Neither before its start nor after one that failed: a client that deletes it waits for its FIFOs to end."""
    (tmp_path / "image").mkdir()
    runtime = options(binary_name=fake_runtime(tmp_path, "exit 1"), criu_path=criu_at(tmp_path))
    shim = make()
    # Any: fields of the request
    fifos: dict[str, Any] = {name: shim.fifo(name) for name in ("stdin", "stdout", "stderr")}
    shim.create(["/bin/true"], checkpoint=str(tmp_path / "image"), options=runtime, **fifos)
    assert not any(is_open(fifo) for fifo in fifos.values())
    if starts:
        with pytest.raises(errors.Error, match="restore failed"):
            shim.start()
        assert not any(is_open(fifo) for fifo in fifos.values())

    shim.rest()
    assert shim.delete().exit_status == 0

    assert shim.shutdown()


def test_a_restore_that_fails_says_why_and_can_be_deleted(make: Make, tmp_path: Path) -> None:
    """The start is refused with criu's words; kill finds nothing; delete ends who waits, and nothing is left."""
    (tmp_path / "image").mkdir()
    body = (
        'while [ "$1" ] && [ "$1" != --work-path ]; do shift; done; '
        'echo "Error (criu/util.c:1534): rlimit: Can\'t setup RLIMIT_NOFILE for self" >$2/restore.log; '
        'echo "Error (criu/image.c:1): no inventory" >>$2/restore.log; exit 1'
    )
    runtime = options(binary_name=fake_runtime(tmp_path, body), criu_path=criu_at(tmp_path))
    shim = make()
    shim.create(["/bin/true"], checkpoint=str(tmp_path / "image"), stdout=shim.fifo("out"), options=runtime)
    waiting = shim.client.send("Wait", messages.ProcessRequest(id=shim.id))

    with pytest.raises(errors.Error, match=r"restore failed: .*criu said: Error .*no inventory; its log is"):
        shim.start()
    with pytest.raises(errors.NotFound):
        shim.kill(9)
    assert shim.status().status == 1
    deletion = shim.client.send("Delete", messages.ProcessRequest(id=shim.id))

    answers = {frame.stream for frame in receive_two(shim)}
    assert answers == {waiting, deletion}
    with pytest.raises(errors.NotFound):
        shim.status()
    assert shim.shutdown()


def receive_two(shim: Shim) -> list[Frame]:
    """Return the next two frames."""
    frames: list[Frame] = []
    while len(frames) < 2:
        frames += shim.client.decoder.feed(shim.client.socket.recv(65536))
    return frames
