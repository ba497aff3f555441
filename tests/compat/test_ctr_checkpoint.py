"""Checkpoints by Debian's `ctr`: dumps become blobs and blobs tasks, and what is refused leaves nothing.

criu is mostly played by an OCI runtime that writes down what it was asked for, and runs
a restored container from its start. The real one, where PATH has one that works, makes the last test.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from compat.conftest import IMAGE, require_criu
from compat.machines import Machine, eventually

from windlass.contracts.checkpoints import CHECKPOINT, CONFIG
from windlass_api.containerd.services.content.v1 import content_pb2, content_pb2_grpc
from windlass_api.containerd.services.tasks.v1 import tasks_pb2, tasks_pb2_grpc
from windlass_api.containerd.types import descriptor_pb2

RUNTIME = '''#!{python}
"""runc, but for checkpoint and restore."""
import os, sys, pathlib
words = sys.argv[1:]
verb = next((each for each in words if each in ("checkpoint", "restore")), "")
if not verb:
    os.execvp("runc", ["runc", *words])
mine = pathlib.Path(__file__)
before, after = words[: words.index(verb)], words[words.index(verb) + 1 :]
image, id = pathlib.Path(after[after.index("--image-path") + 1]), after[-1]
if verb == "checkpoint":
    if mine.with_name("refuse").exists():
        work = pathlib.Path(after[after.index("--work-path") + 1])
        (work / "dump.log").write_text("(00.1) Error (criu): vdso: no\\n")
        sys.exit(1)
    (image / "inventory.img").write_text("memory of " + id)
    (image / "pages").mkdir()
    (image / "pages" / "1.img").write_bytes(bytes(100000))
    if "--leave-running" not in after:
        os.execvp("runc", ["runc", *before, "kill", id, "KILL"])
    sys.exit(0)
size = (image / "pages" / "1.img").stat().st_size
mine.with_name("restored").write_text((image / "inventory.img").read_text() + str(size))
kept = []
for flag in ("--bundle", "--pid-file"):
    kept += [flag, after[after.index(flag) + 1]]
os.execvp("runc", ["runc", *before, "run", "--detach", *kept, id])
'''


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """An OCI runtime that can checkpoint, whatever the kernel thinks of criu."""
    path = tmp_path / "fakerun"
    path.write_text(RUNTIME.format(python=sys.executable))
    path.chmod(0o755)
    return path


@pytest.fixture
def sleeping(windlass: Machine, runtime: Path) -> Iterator[str]:
    """The id of a container that sleeps, of that runtime; afterwards no checkpoint is on disk."""
    box = windlass.new_id()
    windlass.ctr("run", "-d", "--runc-binary", str(runtime), IMAGE, box, "/bin/sleep", "1000")
    yield box
    windlass.remove(box)
    assert scratch(windlass) == []


def scratch(machine: Machine) -> list[str]:
    """Return the directories that checkpoints pass through."""
    return os.listdir(machine.root / "io.windlass.checkpoint.v1.blobs/scratch")


def manifests(machine: Machine, image: str) -> dict[str, str]:
    """Return the digests in an image's index by media type."""
    digest = machine.rows("images", "ls", f"name=={image}")[image][2]
    index = json.loads(machine.ctr("content", "get", digest))
    return {each["mediaType"]: each["digest"] for each in index["manifests"]}


def test_a_task_is_checkpointed_into_the_content_store_and_runs_on(windlass: Machine, sleeping: str) -> None:
    """The image refers to a tar of what criu wrote, and to the spec as it is in the container's record."""
    image = windlass.ctr("tasks", "checkpoint", sleeping).strip()

    found = manifests(windlass, image)
    windlass.collect_garbage()
    with tarfile.open(windlass.blob(found[CHECKPOINT])) as archive:
        assert sorted(archive.getnames()) == ["inventory.img", "pages", "pages/1.img"]
        member = archive.extractfile("inventory.img")
        assert member is not None
        assert member.read() == f"memory of {sleeping}".encode()
    assert b"runtime-spec/1/Spec" in windlass.blob(found[CONFIG]).read_bytes()
    assert windlass.status(sleeping) == "RUNNING"
    windlass.ctr("images", "rm", image)


def test_a_checkpoint_with_exit_ends_the_task(windlass: Machine, sleeping: str) -> None:
    """`ctr tasks checkpoint --exit`: the task is STOPPED and its state in the store."""
    done = windlass.try_ctr("tasks", "checkpoint", "--exit", sleeping)

    # ctr resumes the task in any case, which may find it gone.
    eventually(lambda: windlass.status(sleeping) == "STOPPED")
    if done.returncode == 0:
        assert CHECKPOINT in manifests(windlass, done.stdout.strip())
        windlass.ctr("images", "rm", done.stdout.strip())


def test_a_container_comes_back_from_its_checkpoint(windlass: Machine, runtime: Path, sleeping: str) -> None:
    """`containers checkpoint` and `containers restore --live`: what criu wrote is what criu is given."""
    name, box = "docker.io/test/saved:1", windlass.new_id()
    windlass.ctr("containers", "checkpoint", "--task", "--rw", "--image", sleeping, name)

    windlass.ctr("containers", "restore", "--live", "--rw", box, name, data=b"")

    assert runtime.with_name("restored").read_text() == f"memory of {sleeping}100000"
    kept = windlass.root / f"io.containerd.runtime.v2.task/{windlass.namespace}/{box}/checkpoint"
    assert scratch(windlass) == []
    windlass.remove(box)
    eventually(lambda: not kept.exists())
    windlass.ctr("images", "rm", name)


def test_a_directory_of_the_clients_is_written_instead_of_blobs(
    windlass: Machine, sleeping: str, tmp_path: Path
) -> None:
    """`--image-path`: no descriptor, no image."""
    windlass.ctr("tasks", "checkpoint", "--image-path", str(tmp_path / "image"), sleeping)

    assert (tmp_path / "image/inventory.img").read_text() == f"memory of {sleeping}"
    assert "checkpoint/" not in windlass.ctr("images", "ls", "-q")


def test_where_criu_refuses_the_container_runs_on_and_nothing_is_left(
    windlass: Machine, runtime: Path, sleeping: str
) -> None:
    """One line that names container, criu's words and its log; no image, no blob, no directory."""
    runtime.with_name("refuse").touch()
    before = windlass.ctr("content", "ls", "-q")

    done = windlass.try_ctr("tasks", "checkpoint", sleeping)

    assert done.returncode == 1
    assert "checkpoint failed" in done.stderr and "vdso: no; its log is" in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert windlass.status(sleeping) == "RUNNING"
    assert windlass.ctr("content", "ls", "-q") == before


Entry = tuple[str, bytes, str]
"""Name, type and target of an entry."""


def archive(*entries: Entry) -> bytes:
    """Return a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, target in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    return out.getvalue()


@pytest.fixture
def tasks(windlass: Machine) -> Iterator[tasks_pb2_grpc.TasksStub]:
    """The Tasks service, by raw gRPC."""
    with grpc.insecure_channel(f"unix://{windlass.address}") as channel:
        yield tasks_pb2_grpc.TasksStub(channel)


def put(machine: Machine, digest: str, blob: bytes) -> None:
    """Write a blob that garbage collection leaves alone: one from `ctr content ingest` may be gone at once."""
    request = content_pb2.WriteContentRequest(
        action=content_pb2.COMMIT,
        ref="hostile",
        total=len(blob),
        expected=digest,
        data=blob,
        labels={"containerd.io/gc.root": "test"},
    )
    with grpc.insecure_channel(f"unix://{machine.address}") as channel:
        write = content_pb2_grpc.ContentStub(channel).Write
        list(write(iter([request]), metadata=(("containerd-namespace", machine.namespace),), timeout=30))


def refusal(
    machine: Machine, tasks: tasks_pb2_grpc.TasksStub, box: str, desc: descriptor_pb2.Descriptor
) -> tuple[grpc.StatusCode, str]:
    """Create a task from a checkpoint, which must fail, and return why."""
    request = tasks_pb2.CreateTaskRequest(container_id=box, checkpoint=desc)
    with pytest.raises(grpc.RpcError) as caught:
        tasks.Create(request, metadata=(("containerd-namespace", machine.namespace),), timeout=30)
    call = caught.value
    return call.code(), call.details() or ""


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (archive(("a", tarfile.SYMTYPE, "/etc/shadow")), "holds 'a', which is neither file nor directory"),
        (archive(("a", tarfile.FIFOTYPE, "")), "holds 'a', which is neither"),
        (archive(("a", tarfile.BLKTYPE, "")), "holds 'a', which is neither"),
        (archive(("a", tarfile.SYMTYPE, "/"), ("a/tmp/windlass-was-here", tarfile.REGTYPE, "")), "neither"),
        (archive(("a", tarfile.LNKTYPE, "../../../etc/shadow")), ""),
        (b"no archive at all" * 100, ""),
        (archive(("inventory.img", tarfile.REGTYPE, ""))[:300], ""),
    ],
    ids=["link", "fifo", "device", "link-in-parent", "hard-link", "garbage", "cut-off"],
)
def test_hostile_checkpoints_are_refused(
    windlass: Machine, box_record: str, tasks: tasks_pb2_grpc.TasksStub, blob: bytes, words: str
) -> None:
    """An error that names the blob; no task, no directory, and nothing outside of it."""
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    put(windlass, digest, blob)
    desc = descriptor_pb2.Descriptor(media_type=CHECKPOINT, digest=digest, size=len(blob))

    code, details = refusal(windlass, tasks, box_record, desc)

    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.DATA_LOSS), details
    assert digest in details and words in details
    assert not Path("/tmp/windlass-was-here").exists()
    assert scratch(windlass) == []
    assert box_record not in windlass.ctr("tasks", "ls", "-q").split()


def test_descriptors_that_are_no_checkpoint_are_refused(
    windlass: Machine, box_record: str, tasks: tasks_pb2_grpc.TasksStub
) -> None:
    """A strange type is UNKNOWN as in containerd, a blob that is not there NOT_FOUND."""
    missing = f"sha256:{'0' * 64}"
    strange = descriptor_pb2.Descriptor(media_type="text/plain", digest=missing, size=1)
    absent = descriptor_pb2.Descriptor(media_type=CHECKPOINT, digest=missing, size=1)
    crooked = descriptor_pb2.Descriptor(media_type=CHECKPOINT, digest="../x", size=1)

    assert refusal(windlass, tasks, box_record, strange)[0] is grpc.StatusCode.UNKNOWN
    assert refusal(windlass, tasks, box_record, absent)[0] is grpc.StatusCode.NOT_FOUND
    assert refusal(windlass, tasks, box_record, crooked)[0] is grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def box_record(windlass: Machine) -> Iterator[str]:
    """The id of a container without a task."""
    box = windlass.new_id()
    windlass.ctr("containers", "create", IMAGE, box, "/bin/sleep", "1000")
    yield box
    windlass.remove(box)


def test_checkpoints_of_what_does_not_run_are_refused(
    windlass: Machine, box_record: str, tasks: tasks_pb2_grpc.TasksStub
) -> None:
    """NOT_FOUND without container or task."""
    for id in ("nobody", box_record):
        request = tasks_pb2.CheckpointTaskRequest(container_id=id)
        with pytest.raises(grpc.RpcError) as caught:
            tasks.Checkpoint(request, metadata=(("containerd-namespace", windlass.namespace),), timeout=30)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert scratch(windlass) == []


@pytest.fixture
def criu(windlass: Machine) -> Iterator[Machine]:
    """A machine whose kernel a criu in PATH takes; the containers of its test are gone afterwards."""
    require_criu("criu")
    yield windlass
    for box in ("dumped", "restored"):
        windlass.remove(box)


def test_a_real_dump_comes_back_to_life_from_the_content_store(criu: Machine) -> None:
    """What the program knew is in the blobs: it goes on, in another container with the files of the first."""
    counting = "n=0; while :; do n=$((n+1)); echo $n >/count; sleep 0.05; done"
    criu.ctr("run", "-d", IMAGE, "dumped", "/bin/sh", "-c", counting)

    def count(box: str) -> int:
        return int(criu.ctr("tasks", "exec", "--exec-id", "look", box, "/bin/cat", "/count") or 0)

    eventually(lambda: count("dumped") > 20)
    reached = count("dumped")
    criu.ctr("containers", "checkpoint", "--task", "--rw", "--image", "dumped", "docker.io/test/real:1")
    criu.remove("dumped")

    criu.ctr("containers", "restore", "--live", "--rw", "restored", "docker.io/test/real:1")

    assert count("restored") >= reached
    before = count("restored")
    eventually(lambda: count("restored") > before)
    criu.ctr("images", "rm", "docker.io/test/real:1")
