"""The task manager with the real zygote, the real shim and a real runc."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import groups
import pytest
from runtime_v2.harness import SPEC_TYPE, Daemon, daemon, event_sink, eventually

from windlass import errors
from windlass.contracts.containers import Container
from windlass.contracts.mounts import Mount
from windlass.contracts.shims import ForkedShim
from windlass.contracts.tasks import IO, CreateOptions, Status
from windlass.contracts.values import Payload
from windlass.process import nofile
from windlass_conformance.boxes import BUSYBOX
from windlass_linux import cgroups
from windlass_shim_runc import plugin as shim_plugin
from windlass_zygote.spawner import ForkingZygote

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="containers need root on Linux"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed: apt install runc"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="a static busybox is missing: apt install busybox-static"),
]

RUNC = "io.containerd.runc.v2"
SHIM = "windlass-shim\n"
SCRIPTS = str(Path(sys.executable).parent)
SLOW_RUNC = """
import os, shutil, sys, time
arguments = sys.argv[1:]
if "create" in arguments:
    bundle = arguments[arguments.index("--bundle") + 1]
    shutil.copytree(bundle, "{copy}", symlinks=True, ignore=shutil.ignore_patterns("log"))
    open("{begun}", "w").close()
    time.sleep(0.7)
    if not os.path.exists(bundle):
        shutil.copytree("{copy}", bundle, symlinks=True)
os.execvp("runc", ["runc", *arguments])
"""
"""Goes on with its bundle if that is gone meanwhile, like a runc in the middle of its work, which has read it."""
PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
OPTIONS_TYPE = "containerd.runc.v1.Options"
NOTHING: dict[str, list[str]] = {"sockets": [], "bundles": [], "works": []}
PROGRAM = os.environ.get("WINDLASS_TEST_RUNTIME") or shim_plugin.RUNC


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
    return {"runc": shim_plugin.shim_of(shim_plugin.RUNTIME, PROGRAM)}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A root filesystem with busybox in it."""
    rootfs = tmp_path / "image"
    for name in ("bin", "proc", "dev", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, rootfs / "bin/busybox")
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
        await end_all(running)
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
    spec["linux"]["cgroupsPath"] = groups.path_of(id)
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


async def test_streams_execs_and_signals(windlass: Daemon, image: Path, tmp_path: Path) -> None:
    """Output goes where it was asked for, an exec runs beside the init, pids and metrics tell of both."""
    tasks, made = windlass.tasks, box(["/bin/sh", "-c", "echo started; exec sleep 100"], tmp_path)
    out, exec_out = tmp_path / "out", tmp_path / "exec-out"
    options = CreateOptions(rootfs=bind(image).rootfs, io=IO(stdout=f"file://{out}"))
    pid = await tasks.create("test", made, options)
    await tasks.start("test", made.id)
    await eventually(lambda: out.exists() and out.read_text() == "started\n")

    process = json.loads(made.spec.value)["process"] if made.spec else {}
    process["args"] = ["/bin/sh", "-c", "echo beside; exit 3"]
    spec = Payload(PROCESS_TYPE, json.dumps(process).encode())
    await tasks.exec("test", made.id, "more", spec, IO(stdout=f"file://{exec_out}"))
    waiting = asyncio.create_task(tasks.wait("test", made.id, "more"))
    exec_pid = await tasks.start("test", made.id, "more")
    assert ((await waiting).pid, (await waiting).status) == (exec_pid, 3)
    await tasks.delete_process("test", made.id, "more")
    assert exec_out.read_text() == "beside\n"

    assert [found.pid for found in await tasks.pids("test", made.id)] == [pid]
    (metric,) = await tasks.metrics("test")
    assert metric.data.type_url.startswith("io.containerd.cgroups.v")
    await tasks.pause("test", made.id)
    assert (await tasks.get("test", made.id)).status == Status.PAUSED
    await tasks.resume("test", made.id)
    with pytest.raises(errors.Error, match=r"cannot delete a running"):
        await tasks.delete("test", made.id)
    await tasks.kill("test", made.id, "", 9)
    assert (await tasks.wait("test", made.id)).status == 137
    await tasks.delete("test", made.id)
    assert windlass.left() == NOTHING


async def test_what_runc_says_reaches_the_client(windlass: Daemon, image: Path, tmp_path: Path) -> None:
    """A command that is not there: runc's own words, and nothing is left."""
    made = box(["/no/such/command"], tmp_path)
    with pytest.raises(errors.Error, match=r"failed to create shim task: .*OCI runtime create failed.*no such file"):
        await windlass.tasks.create("test", made, bind(image))
    await eventually(lambda: windlass.left() == NOTHING)
    assert not groups_of(made)


async def test_a_container_survives_its_daemon_and_zygote(
    tmp_path: Path, shims: dict[str, ForkedShim], image: Path, topics: list[str]
) -> None:
    """Both are gone, the container runs on; the next daemon lists it, and its exit code arrives."""
    made, zygote = box(["/bin/sh", "-c", "sleep 1; exit 5"], tmp_path), ForkingZygote()
    async with daemon(tmp_path, zygote, shims) as first:
        pid = await first.tasks.create("test", made, bind(image))
        await first.tasks.start("test", made.id)
    zygote.close()

    second_zygote = ForkingZygote()
    try:
        async with daemon(tmp_path, second_zygote, shims) as second:
            (found,) = await second.tasks.list("test")
            assert (found.container_id, found.pid, found.status) == (made.id, pid, Status.RUNNING)
            assert (await second.tasks.wait("test", made.id)).status == 5
            assert (await second.tasks.delete("test", made.id)).pid == pid
            assert second.left() == NOTHING
    finally:
        second_zygote.close()


async def test_a_shim_that_is_killed_takes_its_container_along(windlass: Daemon, image: Path, tmp_path: Path) -> None:
    """Whoever waits gets 137, events are published, and neither process nor mount nor cgroup is left."""
    made = box(["/bin/sleep", "100"], tmp_path)
    pid = await windlass.tasks.create("test", made, bind(image))
    await windlass.tasks.start("test", made.id)
    waiting = asyncio.create_task(windlass.tasks.wait("test", made.id))
    await asyncio.sleep(0.1)
    os.kill(parent_of(pid), signal.SIGKILL)

    assert (await asyncio.wait_for(waiting, 20)).status == 137

    assert windlass.exchange.topics == ["/tasks/exit", "/tasks/delete"]
    assert windlass.left() == NOTHING
    await eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert not groups_of(made)
    assert not list((tmp_path / "runc/test").iterdir())


async def test_a_container_that_runc_cannot_end_yet_is_ended_later(
    windlass: Daemon, image: Path, tmp_path: Path
) -> None:
    """runc fails when the shim has died: the task has not ended until the next attempt has succeeded."""
    runc, broken = tmp_path / "broken" / "runc", tmp_path / "broken" / "now"
    runc.parent.mkdir()
    runc.write_text(f'#!/bin/sh\n[ -e {broken} ] && exit 3\nexec runc "$@"\n')
    runc.chmod(0o755)
    made = named(box(["/bin/sleep", "100"], tmp_path), runc)
    pid = await windlass.tasks.create("test", made, bind(image))
    await windlass.tasks.start("test", made.id)
    waiting = asyncio.create_task(windlass.tasks.wait("test", made.id))
    await asyncio.sleep(0.1)
    broken.touch()

    os.kill(parent_of(pid), signal.SIGKILL)

    async with asyncio.timeout(20):
        while [each.status for each in await windlass.tasks.list("test")] != [Status.UNKNOWN]:
            await asyncio.sleep(0.05)
    assert not waiting.done()
    assert Path(f"/proc/{pid}").exists()
    broken.unlink()
    assert (await asyncio.wait_for(waiting, 20)).status == 137
    await eventually(lambda: windlass.left() == NOTHING)
    await eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert not groups_of(made)


@pytest.mark.parametrize("foreign", [False, True], ids=["forked", "executed"])
async def test_a_runtime_gets_the_limit_of_descriptors_that_the_daemon_found(
    tmp_path: Path, shims: dict[str, ForkedShim], image: Path, foreign: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Daemon and shim raise their own; a container is not to notice."""
    if foreign and shutil.which("containerd-shim-windlass-v1", path=SCRIPTS) is None:
        pytest.skip("containerd-shim-windlass-v1 is not installed")
    monkeypatch.setenv("PATH", f"{SCRIPTS}:{os.environ['PATH']}")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 2048:
        pytest.skip(f"the hard limit of open files is {limits[1]}; raise it to 2048")
    runc, told = tmp_path / "asking" / "runc", tmp_path / "told"
    runc.parent.mkdir()
    runc.write_text(f'#!/bin/sh\nulimit -Sn >>{told}\nexec runc "$@"\n')
    runc.chmod(0o755)
    monkeypatch.setattr(nofile, "_found", 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1500, limits[1]))
    nofile.raise_limit()
    zygote = ForkingZygote()
    try:
        unused = {"runc": ForkedShim(runtimes=("io.example.unused.v1",), entry="nothing:nothing")}
        made = named(box(["/bin/sleep", "100"], tmp_path), runc)
        if foreign:
            made = dataclasses.replace(made, runtime="io.containerd.windlass.v1")
        async with daemon(tmp_path, zygote, unused if foreign else shims) as running:
            pid = await running.tasks.create("test", made, bind(image))
            await running.tasks.start("test", made.id)
            shim = Path(f"/proc/{parent_of(pid)}/limits").read_text()
            assert re.search(rf"^Max open files +{limits[1]} +{limits[1]} ", shim, re.MULTILINE), shim
            await running.tasks.kill("test", made.id, "", signal.SIGKILL)
            await running.tasks.wait("test", made.id)
            await running.tasks.delete("test", made.id)
        assert set(told.read_text().split()) == {"1500"}
    finally:
        zygote.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def named(made: Container, runc: Path) -> Container:
    """Have a container made by another program than runc."""
    assert made.runtime_options is not None
    # Options.binary_name, field 6
    value = b"\x32" + bytes([len(str(runc))]) + str(runc).encode() + made.runtime_options.value
    return dataclasses.replace(made, runtime_options=Payload(OPTIONS_TYPE, value))


def groups_of(made: Container) -> list[str]:
    """Return the control groups that there are of a container."""
    assert made.spec is not None
    return [group for group in cgroups.groups_of(made.spec.value, made.id) if Path(group).exists()]


async def test_a_shim_that_is_killed_while_it_creates_leaves_nothing(
    windlass: Daemon, image: Path, tmp_path: Path
) -> None:
    """The runtime that it has begun is waited for, so that what that still makes is deleted too."""
    made, begun, runc = box(["/bin/sleep", "100"], tmp_path), tmp_path / "begun", tmp_path / "slow-runc"
    runc.write_text(f"#!{sys.executable}\n{SLOW_RUNC.format(begun=begun, copy=tmp_path / 'copy')}")
    runc.chmod(0o755)
    creating = asyncio.create_task(windlass.tasks.create("test", named(made, runc), bind(image)))
    await eventually(begun.exists)

    os.kill(shim_of(tmp_path), signal.SIGKILL)

    try:
        with pytest.raises(errors.Error):
            await asyncio.wait_for(creating, 20)
        await asyncio.sleep(1)
        assert windlass.left() == NOTHING
        assert not groups_of(made)
        assert not list((tmp_path / "runc/test").iterdir())
    finally:
        subprocess.run(["runc", "--root", tmp_path / "runc/test", "delete", "--force", made.id], check=False)


@pytest.mark.skipif(shutil.which("containerd-shim-runc-v2") is None, reason="containerd's shim is not installed")
async def test_debians_shim_runs_containers_too(
    tmp_path: Path, zygote: ForkingZygote, image: Path, topics: list[str]
) -> None:
    """The foreign binary is found, started, spoken to and ended as containerd does it."""
    unused = {"runc": ForkedShim(runtimes=("io.example.unused.v1",), entry="nothing:nothing")}
    made = box(["/bin/sh", "-c", "exit 7"], tmp_path)
    async with daemon(tmp_path, zygote, unused) as running:
        pid = await running.tasks.create("test", made, bind(image))
        waiting = asyncio.create_task(running.tasks.wait("test", made.id))
        assert await running.tasks.start("test", made.id) == pid
        assert (await waiting).status == 7
        assert (await running.tasks.delete("test", made.id)).status == 7
        assert running.left() == NOTHING
        assert topics == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]


@pytest.mark.skipif(shutil.which("containerd-shim-runc-v2") is None, reason="containerd's shim is not installed")
async def test_debians_shim_is_found_again_and_cleaned_up(
    tmp_path: Path, zygote: ForkingZygote, image: Path, topics: list[str]
) -> None:
    """A second daemon knows its task; when it is killed its own binary cleans up."""
    unused = {"runc": ForkedShim(runtimes=("io.example.unused.v1",), entry="nothing:nothing")}
    made = box(["/bin/sleep", "100"], tmp_path)
    async with daemon(tmp_path, zygote, unused) as first:
        pid = await first.tasks.create("test", made, bind(image))
        await first.tasks.start("test", made.id)
    async with daemon(tmp_path, zygote, unused) as second:
        assert (await second.tasks.get("test", made.id)).status == Status.RUNNING
        bundle = second.context.state / "test" / made.id
        socket = Path(json.loads((bundle / "bootstrap.json").read_text())["address"].removeprefix("unix://"))
        assert socket.is_socket()
        os.kill(parent_of(pid), signal.SIGKILL)
        assert (await asyncio.wait_for(second.tasks.wait("test", made.id), 20)).status == 137
        assert second.exchange.topics == ["/tasks/exit", "/tasks/delete"]
        assert not socket.exists()
        assert second.left() == NOTHING


async def test_a_daemon_killed_at_any_moment_loses_and_leaks_nothing(
    tmp_path: Path, shims: dict[str, ForkedShim], image: Path
) -> None:
    """`kill -9` in the middle of creations and deletions; the next daemon knows every task, and can delete it."""
    made = box(["/bin/true"], tmp_path)
    assert made.spec is not None
    assert made.runtime_options is not None
    (tmp_path / "spec.json").write_bytes(made.spec.value.replace(made.id.encode(), b"NAME"))
    (tmp_path / "options").write_bytes(made.runtime_options.value)
    address = tmp_path / "w.sock.ttrpc"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = str(Path(__file__).with_name("crash_worker.py"))
    chance = random.Random(4)
    for crash in range(6):
        address.unlink(missing_ok=True)
        command = [sys.executable, script, str(tmp_path), f"c{crash}", "3"]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        assert worker.stdout is not None
        await asyncio.to_thread(worker.stdout.readline)
        await asyncio.sleep(chance.uniform(0.02, 0.4))
        worker.kill()
        worker.wait()
        worker.stdout.close()

    address.unlink(missing_ok=True)
    zygote = ForkingZygote()
    try:
        async with event_sink(str(address), []), daemon(tmp_path, zygote, shims) as running:
            await asyncio.wait_for(running.context.ready.wait(), 30)
            await end_all(running)
            assert running.left() == NOTHING
    finally:
        zygote.close()
    await eventually(lambda: not processes_of(tmp_path))
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    # On a busy machine it may have been killed each time before there was one.
    assert not list((tmp_path / "runc/test").glob("*"))


async def end_all(running: Daemon) -> None:
    """Kill and delete every task."""
    for found in await running.tasks.list("test"):
        with contextlib.suppress(errors.NotFound):
            await running.tasks.kill("test", found.container_id, "", 9)
        await running.tasks.wait("test", found.container_id)
        # A delete that the daemon before was killed in may be ending just now.
        with contextlib.suppress(errors.Error):
            await running.tasks.delete("test", found.container_id)
    for found in await running.tasks.list("test"):
        await running.tasks.delete("test", found.container_id)


def processes_of(base: Path) -> list[str]:
    """The processes whose command line or working directory is below ``base``, or whose mounts are."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(base).encode() in (process / "cmdline").read_bytes() + (process / "mountinfo").read_bytes():
                found.append(process.name)
    return found


def shim_of(base: Path) -> int:
    """The shim of the only container below ``base``, by its title; its worker's name is another."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            title, name = (process / "cmdline").read_bytes(), (process / "comm").read_text()
            if name == SHIM and b"entry:serve" in title and str(base).encode() in title:
                return int(process.name)
    pytest.fail(f"there is no shim below {base}")


def parent_of(pid: int) -> int:
    """The shim of a container's init."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
