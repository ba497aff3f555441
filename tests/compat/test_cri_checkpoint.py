"""Checkpoints of containers and pods, and pods made from them.

criu is mostly played by an OCI runtime that writes down what it was asked for, and runs a restored container from its
start. The real one, where PATH or CRIU names one that works, makes the last tests.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest
from compat.conftest import require_criu
from compat.cri_daemon import CriDaemon, running_cri
from compat.scratch_daemon import wait_until
from compat.test_ctr_checkpoint import RUNTIME

from windlass_api.containerd.services.tasks.v1 import tasks_pb2, tasks_pb2_grpc
from windlass_api.runtime.v1 import api_pb2 as cri

CRIU = os.environ.get("CRIU") or shutil.which("criu") or ""
COUNTING = ("/bin/sh", "-c", "n=0; while :; do n=$((n+1)); echo $n >/count; echo line $n; sleep 0.05; done")
FILES = {"config.dump", "spec.dump", "status", "status.dump", "container.log", "rootfs-diff.tar", "checkpoint"}


TABLE = '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc'


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@contextmanager
def in_path(*directories: Path) -> Iterator[None]:
    """Have a PATH for the daemons that are started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join([*map(str, directories), os.environ["PATH"]]))
        yield


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriDaemon]:
    """A daemon whose OCI runtime plays criu."""
    tools = tmp_path_factory.mktemp("tools")
    program(tools / "criu", "#!/bin/sh\necho 'Version: 4.2.1'\n")
    runtime = program(tools / "fakerun", RUNTIME.format(python=sys.executable))
    more = f'{TABLE}]\nruntime_type = "io.containerd.runc.v2"\n{TABLE}.options]\nBinaryName = "{runtime}"\n'
    with in_path(tools), running_cri(tmp_path_factory.mktemp("cri"), more=more) as made:
        yield made


@pytest.fixture
def pod(daemon: CriDaemon) -> Iterator[str]:
    with daemon.pod() as id:
        yield id


def checkpoint(daemon: CriDaemon, id: str, location: object, timeout: int = 0) -> None:
    request = cri.CheckpointContainerRequest(container_id=id, location=str(location), timeout=timeout)
    daemon.runtime.CheckpointContainer(request, timeout=60)


def checkpoint_pod(daemon: CriDaemon, pod: str, path: object, *containers: str, **more: str) -> None:
    request = cri.CheckpointPodRequest(
        pod_sandbox_id=pod, output_path=str(path), container_ids=containers, options=more
    )
    daemon.runtime.CheckpointPod(request, timeout=60)


def restore(
    daemon: CriDaemon, path: object, config: cri.PodSandboxConfig, *containers: cri.ContainerConfig
) -> cri.RestorePodResponse:
    request = cri.RestorePodRequest(checkpoint_path=str(path), config=config, container_configs=containers)
    return daemon.runtime.RestorePod(request, timeout=60)


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details() or ""


def counted(daemon: CriDaemon, id: str, least: int = 1) -> int:
    """Return how far a container has counted, once that is ``least``; its file is empty now and then."""
    deadline = time.monotonic() + 60
    while int(found := daemon.exec(id, "/bin/cat", "/count") or "0") < least:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return int(found)


def leftovers(daemon: CriDaemon) -> list[Path]:
    return list(daemon.scratch.glob("**/io.containerd.grpc.v1.cri/checkpoints/*"))


def test_an_archive_has_what_containerds_has(daemon: CriDaemon, pod: str, tmp_path: Path) -> None:
    id = daemon.run_container(pod, daemon.container_config(COUNTING))
    before = counted(daemon, id, 2)
    location = tmp_path / "made.tar"
    checkpoint(daemon, id, location)
    assert location.stat().st_mode & 0o777 == 0o600
    with tarfile.open(location) as archive:
        assert {name.split("/")[0] for name in archive.getnames()} == FILES
        assert all(each.isreg() or each.isdir() for each in archive)
        read = {each.name: archive.extractfile(each) for each in archive if each.isreg()}
        documents = {name: file.read() for name, file in read.items() if file is not None}
    assert documents["checkpoint/inventory.img"] == f"memory of {id}".encode()
    config = json.loads(documents["config.dump"])
    assert (config["id"], config["runtime"], config["restored"]) == (id, "io.containerd.runc.v2", False)
    assert config["rootfsImageName"] == "docker.io/library/busybox:1"
    assert json.loads(documents["status.dump"])["id"] == id
    assert json.loads(documents["spec.dump"])["process"]["args"] == list(COUNTING)
    assert b"stdout F line 1\n" in documents["container.log"]
    with tarfile.open(fileobj=io.BytesIO(documents["rootfs-diff.tar"])) as layer:
        assert "count" in layer.getnames()
    assert daemon.container_status(id).state == cri.CONTAINER_RUNNING
    counted(daemon, id, before + 1)
    assert leftovers(daemon) == []


def test_what_cannot_be_checkpointed(daemon: CriDaemon, pod: str, tmp_path: Path) -> None:
    created, running = daemon.create_container(pod), daemon.run_container(pod)
    location = tmp_path / "made.tar"
    code, text = refusal(lambda: checkpoint(daemon, created, location))
    assert (code, "only CONTAINER_RUNNING containers" in text) == (grpc.StatusCode.UNKNOWN, True)
    assert refusal(lambda: checkpoint(daemon, "absent", location))[0] is grpc.StatusCode.NOT_FOUND
    assert refusal(lambda: checkpoint(daemon, "", location))[0] is grpc.StatusCode.UNKNOWN
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for place in ("", "relative", "/absent/made.tar", tmp_path, tmp_path / "link"):
        assert refusal(partial(checkpoint, daemon, running, place))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link"]


def test_a_log_and_a_status_that_became_links_are_not_followed(daemon: CriDaemon, pod: str, tmp_path: Path) -> None:
    config = daemon.container_config()
    id = daemon.run_container(pod, config)
    (status,) = daemon.scratch.glob(f"**/io.containerd.grpc.v1.cri/containers/{id}/status")
    kept = status.read_bytes()
    status.unlink()
    status.symlink_to("/etc/shadow")
    code, text = refusal(lambda: checkpoint(daemon, id, tmp_path / "made.tar"))
    assert (code, "not a regular file" in text) == (grpc.StatusCode.UNKNOWN, True)
    assert list(tmp_path.iterdir()) == []
    status.unlink()
    status.write_bytes(kept)
    assert daemon.exec(id, "/bin/echo", "thawed") == "thawed\n"
    assert leftovers(daemon) == []


def test_a_dump_that_fails_leaves_the_container_running(daemon: CriDaemon, pod: str, tmp_path: Path) -> None:
    id = daemon.run_container(pod)
    refuse = Path(_binary(daemon)).with_name("refuse")
    refuse.touch()
    try:
        code, text = refusal(lambda: checkpoint(daemon, id, tmp_path / "made.tar"))
    finally:
        refuse.unlink()
    assert code is grpc.StatusCode.UNKNOWN
    assert text.startswith(f'checkpointing container "{id}" failed: ')
    assert "criu said" in text
    assert daemon.exec(id, "/bin/echo", "thawed") == "thawed\n"
    assert list(tmp_path.iterdir()) == []


def test_a_container_that_a_killed_daemon_left_frozen_goes_on(daemon: CriDaemon, pod: str) -> None:
    id = daemon.run_container(pod)
    (status,) = daemon.scratch.glob(f"**/io.containerd.grpc.v1.cri/containers/{id}/status")
    (status.parents[2] / "checkpoints" / "begun").mkdir(parents=True)
    tasks = tasks_pb2_grpc.TasksStub(daemon.connection)
    tasks.Pause(tasks_pb2.PauseTaskRequest(container_id=id), metadata=(("containerd-namespace", "k8s.io"),), timeout=20)
    daemon.restart()
    assert daemon.exec(id, "/bin/echo", "thawed") == "thawed\n"
    assert leftovers(daemon) == []


def _binary(daemon: CriDaemon) -> str:
    lines = (daemon.scratch / "config.toml").read_text().splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("BinaryName"))


def test_a_pod_comes_back_under_another_name(daemon: CriDaemon, pod: str, tmp_path: Path) -> None:
    first, second = daemon.container_config(COUNTING, "first"), daemon.container_config(name="second")
    ids = [daemon.run_container(pod, each) for each in (first, second)]
    ended = daemon.create_container(pod)
    location = tmp_path / "pod.tar"
    checkpoint_pod(daemon, pod, location)
    daemon.remove_pod(pod)
    answer = restore(daemon, location, daemon.pod_config(), second, first)
    try:
        assert sorted(each.name for each in answer.restored_containers) == ["first", "second"]
        made = {each.name: each.container_id for each in answer.restored_containers}
        assert not {*made.values()} & {*ids, ended}
        assert {daemon.container_status(id).state for id in made.values()} == {cri.CONTAINER_RUNNING}
        counted(daemon, made["first"])
        assert daemon.pod_status(answer.pod_sandbox_id).status.network.ip
        restored = Path(_binary(daemon)).with_name("restored").read_text()
        assert restored in {f"memory of {id}100000" for id in ids}
    finally:
        daemon.remove_pod(answer.pod_sandbox_id)
    assert leftovers(daemon) == []


def test_chosen_containers_of_a_pod(daemon: CriDaemon, pod: str, tmp_path: Path) -> None:
    chosen = daemon.run_container(pod, daemon.container_config(name="chosen"))
    daemon.run_container(pod)
    checkpoint_pod(daemon, pod, tmp_path / "pod.tar", chosen)
    with tarfile.open(tmp_path / "pod.tar") as archive:
        file = archive.extractfile("pod.dump")
        assert file is not None
        assert json.load(file)["containers"] == ["chosen"]


def test_pods_that_cannot_be_checkpointed(daemon: CriDaemon, pod: str, tmp_path: Path) -> None:
    location = tmp_path / "pod.tar"
    assert refusal(lambda: checkpoint_pod(daemon, "absent", location))[0] is grpc.StatusCode.NOT_FOUND
    assert refusal(lambda: checkpoint_pod(daemon, pod, location))[0] is grpc.StatusCode.UNKNOWN
    with daemon.pod() as other:
        foreign = daemon.run_container(other)
        code, text = refusal(lambda: checkpoint_pod(daemon, pod, location, foreign))
        assert (code, "is not in pod" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        code, text = refusal(lambda: checkpoint_pod(daemon, other, location, leave="running"))
        assert (code, "options" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    assert list(tmp_path.iterdir()) == []


def rewritten(location: Path, target: Path, **changed: bytes) -> Path:
    """Write an archive with other documents."""
    with tarfile.open(location) as old, tarfile.open(target, "w") as new:
        for member in old:
            file = old.extractfile(member)
            data = file.read() if file is not None else b""
            name = member.name.rpartition("/")[2].replace(".", "_")
            if name in changed:
                data = changed[name]
                member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return target


def test_what_an_archive_says_beyond_processes_is_without_effect(daemon: CriDaemon, pod: str, tmp_path: Path) -> None:
    """Its documents cannot be changed (its seal), and are not read for anything but the names of containers."""
    config = daemon.container_config(name="only")
    daemon.run_container(pod, config)
    location = tmp_path / "pod.tar"
    checkpoint_pod(daemon, pod, location)
    before = {each.id for each in daemon.pods()}
    evil = {
        "config_dump": b'{"rootfsImageName": "docker.io/evil/image:1", "rootfsImage": "../../x"}',
        "pod_dump": b'{"version": 1, "containers": ["only"], "config": {}}',
        "status": b"",
        "spec_dump": b'{"mounts": [{"source": "/etc", "destination": "/host"}]}',
    }
    for name, document in evil.items():
        changed = rewritten(location, tmp_path / name, **{name: document})
        code, text = refusal(partial(restore, daemon, changed, daemon.pod_config(), config))
        assert (code, "seal" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    absent = daemon.container_config(name="only")
    absent.image.image = "docker.io/evil/image:1"
    code, text = refusal(lambda: restore(daemon, location, daemon.pod_config(), absent))
    assert (code, "evil" in text) == (grpc.StatusCode.UNKNOWN, True)
    for configs in ([], [daemon.container_config(name="other")], [config, config]):
        code, text = refusal(partial(restore, daemon, location, daemon.pod_config(), *configs))
        assert (code, "container_configs" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    assert refusal(lambda: restore(daemon, "/etc/hostname", daemon.pod_config(), config))[0] is (
        grpc.StatusCode.INVALID_ARGUMENT
    )
    assert {each.id for each in daemon.pods()} == before
    assert leftovers(daemon) == []


def test_an_image_that_is_a_checkpoints_path_is_no_restore(daemon: CriDaemon, pod: str, tmp_path: Path) -> None:
    """CreateContainer has not restored since containerd 2.4."""
    id = daemon.run_container(pod)
    checkpoint(daemon, id, tmp_path / "made.tar")
    config = daemon.container_config()
    config.image.image = str(tmp_path / "made.tar")
    code, _ = refusal(lambda: daemon.create_container(pod, config))
    assert code is grpc.StatusCode.NOT_FOUND


def test_where_it_is_switched_off_the_refusal_says_so(tmp_path: Path) -> None:
    with running_cri(tmp_path, "enable_criu = false") as made, made.pod() as id:
        container = made.run_container(id)
        for call in (
            lambda: checkpoint(made, container, tmp_path / "made.tar"),
            lambda: checkpoint_pod(made, id, tmp_path / "made.tar"),
            lambda: restore(made, tmp_path / "x.tar", made.pod_config()),
        ):
            code, text = refusal(call)
            assert code is grpc.StatusCode.UNKNOWN
            assert "criu support is disabled by configuration" in text


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriDaemon]:
    """A daemon with criu."""
    require_criu(CRIU)
    with in_path(Path(CRIU).parent), running_cri(tmp_path_factory.mktemp("real")) as made:
        yield made


def test_a_real_pod_goes_on_where_it_was(real: CriDaemon, tmp_path: Path) -> None:
    config = real.container_config(COUNTING, "only")
    with real.pod() as pod:
        id = real.run_container(pod, config)
        counted(real, id, 10)
        checkpoint(real, id, tmp_path / "made.tar")
        checkpoint_pod(real, pod, tmp_path / "pod.tar")
        counted(real, id, counted(real, id) + 1)
    with tarfile.open(tmp_path / "made.tar") as archive:
        assert {"checkpoint/inventory.img", "dump.log", "stats-dump"} <= set(archive.getnames())
    config.command[:] = ["/bin/false"]
    answer = restore(real, tmp_path / "pod.tar", real.pod_config(), config)
    try:
        (made,) = [each.container_id for each in answer.restored_containers]
        counted(real, made, 11)
        assert real.container_status(made).state == cri.CONTAINER_RUNNING
        log = Path(real.container_status(made).log_path)
        assert wait_until(lambda: len(log.read_text().split()) > 4)
        assert int(log.read_text().split()[4]) > 10
    finally:
        real.remove_pod(answer.pod_sandbox_id)
