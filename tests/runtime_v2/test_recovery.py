"""What a daemon finds of its predecessor's tasks, and what it does about the rest (docs/containerd 4.11)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from runtime_v2.harness import Daemon, ProcessZygote, container, daemon, eventually, run

from windlass import errors
from windlass.contracts.tasks import CreateOptions, Status
from windlass_runtime_v2.sockets import listen_unix

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="pidfds need Linux")

NOTHING: dict[str, list[str]] = {"sockets": [], "bundles": [], "works": []}


async def test_running_tasks_are_found_again(tmp_path: Path, zygote: ProcessZygote) -> None:
    """The next daemon lists them, waits for them, and deletes them; their shims did not notice."""
    async with daemon(tmp_path, zygote) as first:
        pids = {id: await run(first.tasks, container(id)) for id in ("a", "b", "c")}
    assert len(zygote.running) == 3

    async with daemon(tmp_path, zygote) as second:
        found = {process.container_id: process for process in await second.tasks.list("test")}
        assert {id: process.pid for id, process in found.items()} == pids
        assert {process.status for process in found.values()} == {Status.RUNNING}
        waiting = asyncio.create_task(second.tasks.wait("test", "a"))
        await second.tasks.kill("test", "a", "", signal.SIGTERM)
        assert (await waiting).pid == pids["a"]
        assert (await second.tasks.delete("test", "a")).status == 143
        await asyncio.wait_for(second.context.ready.wait(), 10)
        assert second.bundles == ["b", "c"]
        await eventually(lambda: len(zygote.running) == 2)
        assert second.exchange.topics == []


async def test_a_stopped_task_keeps_its_exit_status(tmp_path: Path, zygote: ProcessZygote) -> None:
    """It ended while no daemon ran, and still waits to be deleted."""
    async with daemon(tmp_path, zygote) as first:
        await run(first.tasks, container())
        await first.tasks.kill("test", "box", "", signal.SIGKILL)
    async with daemon(tmp_path, zygote) as second:
        assert (await second.tasks.get("test", "box")).status == Status.STOPPED
        assert (await second.tasks.wait("test", "box")).status == 137
        await second.tasks.delete("test", "box")
        assert second.left() == NOTHING


async def test_a_task_may_not_be_created_while_it_is_looked_for(tmp_path: Path, zygote: ProcessZygote) -> None:
    """The first request after the start already knows of it."""
    async with daemon(tmp_path, zygote) as first:
        await run(first.tasks, container(slow={"State": 0.3}))
    async with daemon(tmp_path, zygote) as second:
        with pytest.raises(errors.AlreadyExists):
            await second.tasks.create("test", container(), CreateOptions())


async def test_what_a_dead_shim_left_is_cleaned_up_and_told(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Its cleanup runs, its bundle and socket go, and its end is published once."""
    async with daemon(tmp_path, zygote) as first:
        await run(first.tasks, container())
        (first.context.state / "test/box/init.pid").write_text("4242")
        await run(first.tasks, container("alive"))
    os.kill(zygote.children[0].pid, signal.SIGKILL)
    zygote.children[0].wait()

    async with daemon(tmp_path, zygote) as second:
        with pytest.raises(errors.NotFound):
            await second.tasks.get("test", "box")
        assert second.exchange.topics == ["/tasks/exit", "/tasks/delete"]
        assert zygote.entries.count("fake:cleanup") == 1
        await asyncio.wait_for(second.context.ready.wait(), 10)
        assert second.bundles == ["alive"]
        assert second.works == ["alive"]
        assert len(second.sockets) == 1


async def test_what_is_left_when_a_daemon_stops_is_for_the_next(tmp_path: Path, zygote: ProcessZygote) -> None:
    """A stop does not wait for the next attempt; the next daemon begins with it, and keeps the name meanwhile."""
    async with daemon(tmp_path, zygote, timeouts={"shim.cleanup": 60.0}) as first:
        await run(first.tasks, container(unclean="no runc"))
        os.kill(zygote.children[0].pid, signal.SIGKILL)
        await first.tasks.wait("test", "box")
        await eventually(lambda: zygote.entries.count("fake:cleanup") == 2, 60)
    tried = zygote.entries.count("fake:cleanup")
    async with daemon(tmp_path, zygote, timeouts={"shim.cleanup": 60.0}) as second:
        await asyncio.wait_for(second.context.ready.wait(), 60)
        assert zygote.entries.count("fake:cleanup") > tried
        assert second.bundles == ["box"]
        with pytest.raises(errors.AlreadyExists, match="no runc"):
            await second.tasks.create("test", container(), CreateOptions())
        (second.context.state / "test/box/config.json").write_text("{}")
        await eventually(lambda: second.left() == NOTHING, 60)


async def test_a_list_that_waited_for_tasks_to_be_found_asks_none_of_them_again(
    tmp_path: Path, zygote: ProcessZygote
) -> None:
    """Each question would wake a shim at rest. The next list asks as always."""
    async with daemon(tmp_path, zygote) as first:
        pids = {id: await run(first.tasks, container(id)) for id in ("a", "b", "c")}

    async with daemon(tmp_path, zygote) as second:
        calls = second.context.state / "calls"
        calls.unlink()
        for times in (1, 2):
            listed = await second.tasks.list("test")
            assert {each.container_id: (each.pid, each.status) for each in listed} == {
                id: (pid, Status.RUNNING) for id, pid in pids.items()
            }
            assert sum("State" in line for line in calls.read_text().splitlines()) == 3 * times


async def test_a_container_that_outlives_its_shim_is_known_to_the_next_daemon(
    tmp_path: Path, zygote: ProcessZygote
) -> None:
    """It is listed as unknown until its process ends; then whoever waits is told, and its events come."""
    with subprocess.Popen(["sleep", "1000"]) as init:
        try:
            async with daemon(tmp_path, zygote) as first:
                await run(first.tasks, container(pid=init.pid, unclean="no runc"))
                (first.context.state / "test/box/init.pid").write_text(str(init.pid))
            os.kill(zygote.children[0].pid, signal.SIGKILL)
            zygote.children[0].wait()
            timeouts = {"shim.cleanup": 1.0, "shim.shutdown": 0.3}
            async with daemon(tmp_path, zygote, timeouts=timeouts) as second:
                found = await second.tasks.list("test")
                assert [(each.pid, each.status) for each in found] == [(init.pid, Status.UNKNOWN)]
                assert (await second.tasks.get("test", "box")).status == Status.UNKNOWN
                with pytest.raises(errors.Unavailable, match="its container has not gone yet: no runc"):
                    await second.tasks.delete("test", "box")
                waiting = asyncio.create_task(second.tasks.wait("test", "box"))
                await asyncio.sleep(0)
                init.kill()
                assert (await asyncio.wait_for(waiting, 20)).status == 137
                assert second.exchange.topics == ["/tasks/exit", "/tasks/delete"]
                assert await second.tasks.list("test") == []
                (second.context.state / "test/box/config.json").write_text("{}")
                await eventually(lambda: second.left() == NOTHING, 60)
        finally:
            init.kill()


async def test_only_what_was_there_is_counted(
    tmp_path: Path, zygote: ProcessZygote, caplog: pytest.LogCaptureFixture
) -> None:
    """Tasks that are made while earlier ones are looked for are not found again."""
    caplog.set_level(logging.INFO)
    async with daemon(tmp_path, zygote) as first:
        await run(first.tasks, container(slow={"State": 0.5}))
        await run(first.tasks, container("dead"))
    os.kill(zygote.children[1].pid, signal.SIGKILL)
    zygote.children[1].wait()
    async with daemon(tmp_path, zygote) as second:
        await run(second.tasks, container("new"))
        await asyncio.wait_for(second.context.ready.wait(), 10)
    assert "1 of 2 tasks were found again" in caplog.text


@pytest.mark.parametrize("content", [None, b"", b'{"addr'], ids=["missing", "empty", "cut off"])
async def test_a_bundle_without_bootstrap_is_removed(
    tmp_path: Path, zygote: ProcessZygote, content: bytes | None
) -> None:
    """The daemon was killed while it made it."""
    bundle = tmp_path / "state/io.containerd.runtime.v2.task/test/box"
    (bundle / "rootfs").mkdir(parents=True)
    if content is not None:
        (bundle / "bootstrap.json").write_bytes(content)
    async with daemon(tmp_path, zygote) as running:
        await asyncio.wait_for(running.context.ready.wait(), 10)
        assert running.left() == NOTHING
        assert running.exchange.topics == []


async def test_a_shim_without_its_task_is_shut_down(tmp_path: Path, zygote: ProcessZygote) -> None:
    """The daemon was killed between the shim's start and the task's creation."""
    async with daemon(tmp_path, zygote) as first:
        await first.tasks.create("test", container(fail={"State": [5, "no such task"]}), CreateOptions())
    async with daemon(tmp_path, zygote) as second:
        await asyncio.wait_for(second.context.ready.wait(), 10)
        assert second.left() == NOTHING
        await eventually(lambda: not zygote.running)


async def test_a_shim_that_is_still_making_a_task_is_ended(tmp_path: Path, zygote: ProcessZygote) -> None:
    """The daemon was killed during a creation, of which nobody was told; what it makes must not be lost."""
    unknown = [5, "no such task"]
    async with daemon(tmp_path, zygote) as first:
        await first.tasks.create("test", container(fail={"State": unknown, "Delete": unknown}), CreateOptions())
    async with daemon(tmp_path, zygote, timeouts={"shim.shutdown": 0.3}) as second:
        await asyncio.wait_for(second.context.ready.wait(), 10)
        assert second.left() == NOTHING
        await eventually(lambda: not zygote.running)
        assert zygote.entries == ["fake:serve", "fake:cleanup"]


@pytest.mark.parametrize("behaviour", [{"fail": {"State": [5, "no such task"]}}, {"hidden": 4}], ids=["gone", "late"])
async def test_an_executed_shim_without_its_task_is_awaited_and_cleaned_up(
    tmp_path: Path, zygote: ProcessZygote, behaviour: dict[str, Any]
) -> None:
    """It cannot be killed; it may end in the middle of a creation, or have a task only a little later."""
    async with daemon(tmp_path, zygote) as first:
        await first.tasks.create("test", container(**behaviour), CreateOptions())
        bundle, binary = first.context.state / "test/box", tmp_path / "shim"
        binary.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/executed\n')
        binary.chmod(0o755)
        told = json.loads((bundle / "bootstrap.json").read_text()) | {"runtime": ""}
        (bundle / "bootstrap.json").write_text(json.dumps(told))
        (bundle / "shim-binary-path").write_text(str(binary))
    async with daemon(tmp_path, zygote) as second:
        await asyncio.wait_for(second.context.ready.wait(), 20)
        assert not second.bundles and not second.works, "its socket is the shim's own to remove"
        await eventually(lambda: not zygote.running)
        assert (tmp_path / "executed").read_text().endswith(" delete\n")
        with pytest.raises(errors.NotFound):
            await second.tasks.get("test", "box")


@pytest.mark.parametrize("runs", [False, True], ids=["unused", "runs"])
async def test_a_failed_delete_of_an_executed_shim_counts_if_there_is_something_left(
    tmp_path: Path, zygote: ProcessZygote, runs: bool
) -> None:
    """Those of containerd fail when they never came to make anything; a process that is there is something."""
    bundle, binary = tmp_path / "state/io.containerd.runtime.v2.task/test/box", tmp_path / "shim"
    (bundle / "rootfs").mkdir(parents=True)
    binary.write_text("#!/bin/sh\necho no file runtime >&2\nexit 1\n")
    binary.chmod(0o755)
    (bundle / "bootstrap.json").write_text(json.dumps({"address": f"unix://{tmp_path}/gone", "version": 2}))
    (bundle / "shim-binary-path").write_text(str(binary))
    (bundle / "init.pid").write_text(str(os.getpid()) if runs else "")
    async with daemon(tmp_path, zygote) as running:
        await asyncio.wait_for(running.context.ready.wait(), 60)
        assert running.bundles == (["box"] if runs else [])
        if runs:
            with pytest.raises(errors.AlreadyExists, match="delete ended with 1: no file runtime"):
                await running.tasks.create("test", container(), CreateOptions())


async def test_a_shim_that_does_not_answer_is_kept(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Boot waits no longer than the deadline, and a slow shim is no dead one."""
    async with daemon(tmp_path, zygote) as first:
        await run(first.tasks, container(hang=["State"]))
        await run(first.tasks, container("good"))
    async with daemon(tmp_path, zygote, timeouts={"shim.load": 0.3, "task.state": 0.3}) as second:
        await asyncio.wait_for(second.context.ready.wait(), 5)
        assert [process.container_id for process in await second.tasks.list("test")] == ["good"]
        await second.tasks.kill("test", "box", "", signal.SIGTERM)
        assert (await second.tasks.wait("test", "box")).status == 143
        await second.tasks.delete("test", "box")


async def test_sockets_that_nobody_serves_are_removed(tmp_path: Path, zygote: ProcessZygote) -> None:
    """One that somebody listens on stays, whoever it is."""
    directory = tmp_path / "state/s"
    directory.mkdir(parents=True)
    listen_unix(directory / "dead").close()
    with listen_unix(directory / "live"):
        async with daemon(tmp_path, zygote) as running:
            await asyncio.wait_for(running.context.ready.wait(), 10)
            assert running.sockets == ["live"]


async def test_stopping_disturbs_no_shim(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Connections end, and that is all: no event, no cleanup."""
    running: Daemon
    async with daemon(tmp_path, zygote) as running:
        await run(running.tasks, container())
        waiting = asyncio.create_task(running.tasks.wait("test", "box"))
        await asyncio.sleep(0.05)
    with pytest.raises((asyncio.CancelledError, errors.Unavailable)):
        await waiting
    await asyncio.sleep(0.1)
    assert running.exchange.topics == []
    assert len(zygote.running) == 1
    assert zygote.entries == ["fake:serve"]
