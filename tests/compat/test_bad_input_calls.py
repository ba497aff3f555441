"""Bad calls: garbage on the sockets, and task requests that cannot be carried out, leave nothing behind."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any  # JSON, and stubs

import grpc
import pytest
from compat.bad_images import archive, busybox_layer
from compat.scratch_daemon import (
    METADATA,
    ScratchDaemon,
    needs_ctr,
    needs_root,
    needs_runc,
    open_sockets,
    wait_until,
)
from google.protobuf import any_pb2

from windlass_api.containerd.services.containers.v1 import containers_pb2, containers_pb2_grpc
from windlass_api.containerd.services.tasks.v1 import tasks_pb2, tasks_pb2_grpc
from windlass_api.containerd.types import mount_pb2

pytestmark = [needs_root, needs_ctr, needs_runc]

IMAGE = "docker.io/test/busybox:1"
SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScratchDaemon]:
    """One daemon for all, with an image: it has to stand them one after the other."""
    daemon = ScratchDaemon(tmp_path_factory.mktemp("d"))
    daemon.start()
    try:
        (daemon.scratch / "image.tar").write_bytes(archive(IMAGE, [busybox_layer()]))
        done = daemon.ctr("images", "import", str(daemon.scratch / "image.tar"))
        assert done.returncode == 0, done.stderr
        yield daemon
    finally:
        daemon.close()


@pytest.fixture
def clean(daemon: ScratchDaemon) -> Iterator[ScratchDaemon]:
    """The daemon; afterwards it answers and no bundle, process, mount or socket of a task is left."""
    assert sockets(daemon) == []
    yield daemon
    assert wait_until(lambda: not daemon.leftovers()), daemon.leftovers()
    assert daemon.ctr("version").returncode == 0
    assert sockets(daemon) == []


def sockets(daemon: ScratchDaemon) -> list[Path]:
    """Return the sockets of the daemon's shims, which are in a directory of its own."""
    return list((daemon.state / "s").iterdir())


def garbage() -> list[bytes]:
    """Return what no peer should send, to either kind of socket."""
    chance = random.Random(7)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    return [
        *(chance.randbytes(size) for size in (1, 9, 10, 100, 5000, 200_000)),
        b"GET / HTTP/1.1\r\n\r\n",
        preface + chance.randbytes(500),
        preface + b"\0\0\0\x04\0\0\0\0\0" + b"\xff\xff\xff\x01\0\0\0\0\1",
        preface[:10],
        struct.pack(">IIBB", 4 << 20, 1, 1, 0),
        struct.pack(">IIBB", 0xFFFFFFFF, 1, 1, 0) + bytes(1000),
        struct.pack(">IIBB", 100, 1, 1, 0) + b"short",
        struct.pack(">IIBB", 5, 1, 1, 0) + b"\xff\xff\xff\xff\xff",
        struct.pack(">IIBB", 0, 2, 1, 0),
        struct.pack(">IIBB", 0, 1, 99, 0) * 1000,
    ]


@pytest.mark.parametrize("which", ["address", "ttrpc"])
def test_garbage_does_not_disturb(clean: ScratchDaemon, which: str) -> None:
    """The connection ends or waits; the daemon answers others, and keeps no socket of it."""
    path = str(getattr(clean, which))
    before = open_sockets(clean.pid)
    for data in garbage():
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(0.1)
            peer.connect(path)
            try:
                peer.sendall(data)
                while peer.recv(1 << 16):
                    pass
            except (TimeoutError, BrokenPipeError, ConnectionResetError):
                pass
        assert clean.ctr("version").returncode == 0
    assert wait_until(lambda: open_sockets(clean.pid) <= before + 3), (before, open_sockets(clean.pid))
    assert "Traceback" not in clean.log.read_text()


class Client:
    """Containers and tasks by raw gRPC."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.tasks = tasks_pb2_grpc.TasksStub(channel)
        self.containers = containers_pb2_grpc.ContainersStub(channel)

    def container(self, id: str, spec: bytes | None, runtime: str = "io.containerd.runc.v2") -> None:
        container = containers_pb2.Container(id=id, runtime=containers_pb2.Container.Runtime(name=runtime))
        if spec is not None:
            container.spec.CopyFrom(any_pb2.Any(type_url=SPEC_TYPE, value=spec))
        self.containers.Create(containers_pb2.CreateContainerRequest(container=container), metadata=METADATA)

    def remove(self, id: str) -> None:
        self.containers.Delete(containers_pb2.DeleteContainerRequest(id=id), metadata=METADATA)

    def create(self, id: str, **fields: Any) -> None:  # Any: the message's
        self.tasks.Create(tasks_pb2.CreateTaskRequest(container_id=id, **fields), metadata=METADATA, timeout=30)


@pytest.fixture
def client(clean: ScratchDaemon) -> Iterator[Client]:
    with clean.channel() as channel:
        yield Client(channel)


def refused(call: Callable[[], object]) -> grpc.RpcError:
    """Return the error that ``call`` is refused with; a defect of ours would be UNKNOWN."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def spec(**changes: Any) -> bytes:
    """Return a spec that runs ``sleep``; Any: JSON."""
    process = {"args": ["/bin/sleep", "60"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]}
    whole: dict[str, Any] = {"ociVersion": "1.0.2", "process": process, "root": {"path": "rootfs"}}
    whole["linux"] = {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]}
    whole |= {"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}]}
    return json.dumps({key: value for key, value in (whole | changes).items() if value is not None}).encode()


@pytest.mark.parametrize("id", ["a/b", "../x", "x" * 77, "ünïcode", "", "a..b", "-a", "a b", "a\nb", "a\0b"])
def test_ids_that_cannot_be_are_refused(client: Client, id: str) -> None:
    """By every call that takes one."""
    assert refused(lambda: client.container(id, spec())).code() == Code.INVALID_ARGUMENT
    assert refused(lambda: client.create(id)).code() in (Code.NOT_FOUND, Code.INVALID_ARGUMENT)
    kill = tasks_pb2.KillRequest(container_id=id, signal=9)
    assert refused(lambda: client.tasks.Kill(kill, metadata=METADATA)).code() in (Code.NOT_FOUND, Code.INVALID_ARGUMENT)


def test_a_second_container_of_one_id_is_refused(client: Client) -> None:
    """By its name."""
    client.container("twice", spec())
    error = refused(lambda: client.container("twice", spec()))
    client.remove("twice")
    assert error.code() == Code.ALREADY_EXISTS
    assert "twice" in (error.details() or "")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"no json", "spec"),
        (b"[1, 2]", "spec"),
        (b"[" * 100_000, "spec"),
        (b"{}", ""),
        (b"\xff\xfe", "spec"),
        (spec(process=None), ""),
        (spec(root=None), ""),
        (spec(), ""),
    ],
    ids=["text", "list", "deep", "empty", "binary", "no process", "no root", "no rootfs"],
)
def test_a_spec_that_cannot_run_is_refused(client: Client, value: bytes, message: str) -> None:
    """The error is about the container; no bundle, shim or mount stays."""
    client.container("spec", value)
    try:
        error = refused(lambda: client.create("spec"))
    finally:
        client.remove("spec")
    assert error.code() != Code.DEADLINE_EXCEEDED
    assert error.details()
    assert "Traceback" not in (error.details() or "")
    assert message in (error.details() or "")


@pytest.mark.parametrize("runtime", ["io.example.nothing.v9", "/no/such/shim", "../../x", "", "runc"])
def test_an_unknown_runtime_is_named(client: Client, runtime: str) -> None:
    """At the latest when the task is created."""

    def create() -> None:
        client.container("runtime", spec(), runtime)
        try:
            client.create("runtime")
        finally:
            client.remove("runtime")

    error = refused(create)
    assert error.code() in (Code.UNKNOWN, Code.INVALID_ARGUMENT), error  # docs/containerd 4.1: a plain error
    assert runtime in (error.details() or "")


@pytest.mark.parametrize(
    "mount",
    [
        mount_pb2.Mount(type="bind", source="/no/such", options=["rbind"]),
        mount_pb2.Mount(type="nosuchfs", source="x"),
        mount_pb2.Mount(type="overlay", source="overlay", options=["lowerdir=/no/such"]),
        mount_pb2.Mount(type="bind", source="/", target="../../../x", options=["rbind", "ro"]),
    ],
    ids=["no source", "no type", "no lower", "target outside"],
)
def test_a_rootfs_that_cannot_be_mounted_is_refused(client: Client, mount: mount_pb2.Mount) -> None:
    """Whatever had been mounted before is unmounted."""
    client.container("rootfs", spec())
    try:
        error = refused(lambda: client.create("rootfs", rootfs=[mount]))
    finally:
        client.remove("rootfs")
    assert error.code() not in (Code.DEADLINE_EXCEEDED, Code.OK)
    assert error.details()


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_io_that_is_not_there_is_refused(clean: ScratchDaemon, client: Client, stream: str) -> None:
    """A path in a directory that does not exist, and a scheme that nobody knows."""
    client.container("io", spec())
    try:
        for path in (f"{clean.scratch}/no/such", "gopher://x"):
            error = refused(lambda path=path: client.create("io", **{stream: path}))  # type: ignore[misc]
            assert error.code() != Code.DEADLINE_EXCEEDED, error
            assert error.details()
    finally:
        client.remove("io")


def test_calls_about_nothing_name_it(client: Client) -> None:
    """NOT_FOUND, and the id."""
    t, m = client.tasks, METADATA
    for call in (
        lambda: t.Kill(tasks_pb2.KillRequest(container_id="ghost", signal=9), metadata=m),
        lambda: t.Start(tasks_pb2.StartRequest(container_id="ghost"), metadata=m),
        lambda: t.Delete(tasks_pb2.DeleteTaskRequest(container_id="ghost"), metadata=m),
        lambda: t.Get(tasks_pb2.GetRequest(container_id="ghost"), metadata=m),
        lambda: t.Wait(tasks_pb2.WaitRequest(container_id="ghost"), metadata=m),
        lambda: t.Pause(tasks_pb2.PauseTaskRequest(container_id="ghost"), metadata=m),
        lambda: t.ListPids(tasks_pb2.ListPidsRequest(container_id="ghost"), metadata=m),
        lambda: t.Create(tasks_pb2.CreateTaskRequest(container_id="ghost"), metadata=m),
        lambda: t.Exec(tasks_pb2.ExecProcessRequest(container_id="ghost", exec_id="e"), metadata=m),
    ):
        error = refused(call)
        assert error.code() == Code.NOT_FOUND, error
        assert "ghost" in (error.details() or "")


def test_calls_that_a_tasks_state_does_not_allow(clean: ScratchDaemon) -> None:
    """Delete while it runs, a second task, start again, exec twice, exec when stopped: each with its own status."""
    assert clean.ctr("run", "-d", IMAGE, "live", "/bin/sleep", "60").returncode == 0
    process = any_pb2.Any(type_url=SPEC_TYPE, value=json.dumps({"args": ["/bin/true"], "cwd": "/"}).encode())
    junk = any_pb2.Any(type_url=SPEC_TYPE, value=b"no json")
    try:
        with clean.channel() as channel:
            client, m = Client(channel), METADATA
            t = client.tasks

            def execute(id: str, spec: any_pb2.Any = process) -> object:
                return t.Exec(tasks_pb2.ExecProcessRequest(container_id="live", exec_id=id, spec=spec), metadata=m)

            for expected, call in (
                (
                    Code.UNKNOWN,  # docs/containerd 4.7: wrong states are plain errors
                    lambda: t.Delete(tasks_pb2.DeleteTaskRequest(container_id="live"), metadata=m),
                ),
                (Code.ALREADY_EXISTS, lambda: client.create("live")),
                (Code.UNKNOWN, lambda: t.Start(tasks_pb2.StartRequest(container_id="live"), metadata=m)),
                (Code.INVALID_ARGUMENT, lambda: execute("junk", junk)),
                (Code.INVALID_ARGUMENT, lambda: execute("a/b")),
                (Code.INVALID_ARGUMENT, lambda: execute("")),
                (Code.NOT_FOUND, lambda: t.Start(tasks_pb2.StartRequest(container_id="live", exec_id="x"), metadata=m)),
                (None, lambda: t.Kill(tasks_pb2.KillRequest(container_id="live", signal=999), metadata=m)),
            ):
                error = refused(call)
                assert error.code() == expected or expected is None, (expected, error.code(), error.details())
                assert error.code() != Code.DEADLINE_EXCEEDED
                assert error.details()
            execute("e")
            assert refused(lambda: execute("e")).code() == Code.ALREADY_EXISTS
            t.Kill(tasks_pb2.KillRequest(container_id="live", signal=9), metadata=m)
            t.Wait(tasks_pb2.WaitRequest(container_id="live"), metadata=m, timeout=10)
            error = refused(lambda: execute("late"))
            assert error.code() == Code.UNKNOWN, error  # docs/containerd 4.7: exec in stopped is a plain error
            error = refused(lambda: t.Kill(tasks_pb2.KillRequest(container_id="live", signal=9), metadata=m))
            assert error.code() == Code.NOT_FOUND, error
    finally:
        clean.ctr("tasks", "rm", "-f", "live")
        clean.ctr("containers", "rm", "live")


def test_a_client_that_goes_away_while_a_task_is_created_leaves_nothing(clean: ScratchDaemon) -> None:
    """However far it had come."""
    with clean.channel() as channel:
        client = Client(channel)
        for delay in (0.0, 0.005, 0.02, 0.05):
            client.container("gone", spec())
            call = client.tasks.Create.future(tasks_pb2.CreateTaskRequest(container_id="gone"), metadata=METADATA)
            time.sleep(delay)
            call.cancel()
            assert wait_until(lambda: not clean.leftovers())
            client.remove("gone")
    assert os.path.exists(clean.address)
