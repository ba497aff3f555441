"""What the task manager promises, with shims that behave and shims that do not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime_v2.harness import RUNTIME, Daemon, ProcessZygote, container, daemon, eventually, run

from windlass import errors
from windlass.contracts.containers import Container, ContainerHooks
from windlass.contracts.shims import ForkedShim
from windlass.contracts.tasks import IO, CreateOptions, Exit, Resources, Status
from windlass.contracts.values import Payload
from windlass.gate import Gate
from windlass.hooks import hookimpl
from windlass_api.containerd.events import task_pb2 as events_pb
from windlass_runtime_v2.plugin import Config
from windlass_runtime_v2.tasks import refuse_root_cgroup

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="pidfds need Linux")

NOTHING: dict[str, list[str]] = {"sockets": [], "bundles": [], "works": []}
NO_PROCESS = 1 << 23
PROCESS = Payload("types.containerd.io/opencontainers/runtime-spec/1/Process", b"{}")


def calls(running: Daemon) -> list[str]:
    """The calls that shims have had, without the service's name."""
    return [line.split()[-1] for line in (running.context.state / "calls").read_text().splitlines()]


async def test_a_task_is_created_started_waited_for_and_deleted(tmp_path: Path, zygote: ProcessZygote) -> None:
    """The whole life, without a call that is not needed; then nothing is left of it."""
    async with daemon(tmp_path, zygote) as running:
        tasks = running.tasks
        pid = await tasks.create("test", container(), CreateOptions(io=IO(stdout="/out")))
        assert (await tasks.get("test", "box")).status == Status.CREATED
        waiting = asyncio.create_task(tasks.wait("test", "box"))
        assert await tasks.start("test", "box") == pid
        found = await tasks.get("test", "box")
        assert (found.container_id, found.pid, found.status, found.io.stdout) == ("box", pid, Status.RUNNING, "/out")

        await tasks.kill("test", "box", "", signal.SIGTERM)
        assert (await waiting).status == 143
        exit = await tasks.delete("test", "box")

        assert (exit.pid, exit.status) == (pid, 143)
        assert running.left() == NOTHING
        with pytest.raises(errors.NotFound, match="task box does not exist"):
            await tasks.get("test", "box")
        await eventually(lambda: not zygote.running)
        assert sorted(call for call in calls(running) if call != "State") == [
            "Create", "Delete", "Kill", "Shutdown", "Start", "Wait",
        ]  # fmt: skip
        assert running.exchange.topics == []


async def test_what_a_forked_shim_says_reaches_the_log_of_each_daemon(
    tmp_path: Path, zygote: ProcessZygote, caplog: pytest.LogCaptureFixture
) -> None:
    """By the FIFO in its bundle, as with shims of others; also that of a daemon that finds the shim again."""
    caplog.set_level(logging.INFO)
    for first in (True, False):
        caplog.clear()
        async with daemon(tmp_path, zygote) as running:
            if first:
                await run(running.tasks, container(says="hello"))
            await running.tasks.get("test", "box")
            await eventually(lambda: "shim of task box: hello" in caplog.messages)
            if not first:
                await running.tasks.kill("test", "box", "", 9)
                await running.tasks.delete("test", "box")
                assert running.left() == NOTHING


@pytest.mark.parametrize("kind", ["file", "link", "directory", "nothing"])
async def test_what_is_in_the_place_of_a_shims_log_is_left_alone(
    tmp_path: Path, zygote: ProcessZygote, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """The task is found again; only a FIFO is read, and nothing else stays open."""
    async with daemon(tmp_path, zygote) as running:
        await run(running.tasks, container())
        log = running.context.state / "test/box/log"
    log.unlink()
    if kind == "file":
        log.write_text("what somebody has written\n")
    elif kind == "link":
        log.symlink_to(tmp_path)
    elif kind == "directory":
        log.mkdir()
    async with daemon(tmp_path, zygote) as running:
        assert (await running.tasks.get("test", "box")).status == Status.RUNNING
        opened = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        assert (str(log) in opened) == (kind == "nothing")
        assert ("cannot read its shim's log" in caplog.text) == (kind != "nothing")
        await running.tasks.kill("test", "box", "", 9)
        await running.tasks.delete("test", "box")
        assert running.left() == NOTHING


@pytest.mark.parametrize("installed", [True, False])
async def test_the_bundle_names_an_executable_that_can_clean_up(
    tmp_path: Path, zygote: ProcessZygote, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    """`shim-binary-path`, for a containerd that takes over; where it is not installed there is no such file."""
    program = tmp_path / "containerd-shim-fake-v1"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755 if installed else 0o644)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    shims = {"fake": ForkedShim(runtimes=(RUNTIME,), entry="fake:serve", program=program.name)}
    async with daemon(tmp_path, zygote, shims) as running:
        await running.tasks.create("test", container(), CreateOptions())
        named = running.context.state / "test/box/shim-binary-path"
        assert (named.read_text() if named.exists() else "") == (str(program) if installed else "")
        await running.tasks.delete("test", "box")


async def test_a_second_task_of_a_name_is_refused(tmp_path: Path, zygote: ProcessZygote) -> None:
    """While one is there, and while one is being made; another namespace is another name."""
    async with daemon(tmp_path, zygote) as running:
        box, options = container(), CreateOptions()
        both = await asyncio.gather(
            running.tasks.create("test", box, options),
            running.tasks.create("test", box, options),
            running.tasks.create("other", box, options),
            return_exceptions=True,
        )
        assert sorted(type(result).__name__ for result in both) == ["AlreadyExists", "int", "int"]
        with pytest.raises(errors.AlreadyExists, match="task box already exists"):
            await running.tasks.create("test", box, options)
        for namespace in ("test", "other"):
            await running.tasks.delete(namespace, "box")
        assert running.left() == NOTHING
        assert await running.tasks.create("test", box, options)


@pytest.mark.parametrize(
    ("behaviour", "error", "message"),
    [
        (
            {"fail": {"Create": [2, "OCI runtime create failed: no"]}},
            errors.Error,
            ": OCI runtime create failed: no",
        ),
        ({"die": ["Create"]}, errors.Unavailable, "task box: Create: connection to unix://"),
        ({"hang": ["Create"]}, errors.DeadlineExceeded, "task box: Create: no answer to Create within 1 s"),
        ({"hang": ["Create", "Delete", "Shutdown"]}, errors.DeadlineExceeded, "Create: no answer"),
        ({"fail": {"Create": [3, "bad"]}, "hang": ["Delete"]}, errors.InvalidArgument, "bad"),
    ],
    ids=["refuses", "dies", "hangs", "hangs-in-all", "refuses-then-hangs"],
)
async def test_a_failed_create_leaves_nothing(
    tmp_path: Path, zygote: ProcessZygote, behaviour: dict[str, Any], error: type[errors.Error], message: str
) -> None:
    """No process, bundle, socket or name; the error says which step failed and why."""
    timeouts = {"shim.cleanup": 1.0, "shim.shutdown": 0.5}
    config = Config(request_timeout=1.0 if "hang" in behaviour and "fail" not in behaviour else 10.0)
    async with daemon(tmp_path, zygote, timeouts=timeouts, config=config) as running:
        with pytest.raises(error, match=message) as caught:
            await running.tasks.create("test", container(**behaviour), CreateOptions())
        assert type(caught.value) is error
        assert running.left() == NOTHING
        await eventually(lambda: not zygote.running)
        assert await running.tasks.create("test", container(), CreateOptions())


async def test_a_shim_that_does_not_start_leaves_nothing(tmp_path: Path, zygote: ProcessZygote) -> None:
    """The zygote's error reaches the client."""
    zygote.broken = True
    async with daemon(tmp_path, zygote) as running:
        with pytest.raises(errors.Unavailable, match="broken on purpose"):
            await running.tasks.create("test", container(), CreateOptions())
        assert running.left() == NOTHING


@pytest.mark.parametrize(
    ("box", "error", "message"),
    [
        (container("../up"), errors.InvalidArgument, "task '../up' is not valid"),
        (container("a" * 77), errors.InvalidArgument, "longer than 76"),
        (Container("box", runtime=RUNTIME), errors.InvalidArgument, "container box has no spec"),
        (container(runtime=""), errors.Error, "names no runtime"),
        (container(runtime="io.example.no.v9"), errors.Error, 'binary "containerd-shim-no-v9" is not installed'),
    ],
)
async def test_bad_requests_are_refused_and_leave_nothing(
    tmp_path: Path, zygote: ProcessZygote, box: Container, error: type[errors.Error], message: str
) -> None:
    """Before any process is started."""
    async with daemon(tmp_path, zygote) as running:
        with pytest.raises(error, match=message):
            await running.tasks.create("test", box, CreateOptions())
        assert running.left() == NOTHING
        assert not zygote.children


async def test_a_bundle_in_the_way_is_reported_and_kept(tmp_path: Path, zygote: ProcessZygote) -> None:
    """It is nobody's task, and deleting it is not ours to decide."""
    async with daemon(tmp_path, zygote) as running:
        (running.context.state / "test/box").mkdir(parents=True)
        with pytest.raises(errors.AlreadyExists, match="in the way of task box"):
            await running.tasks.create("test", container(), CreateOptions())
        assert running.bundles == ["box"]
        assert running.sockets == []


async def test_a_client_that_leaves_during_create_gets_no_task(tmp_path: Path, zygote: ProcessZygote) -> None:
    """The creation ends first, then all of it is undone."""
    async with daemon(tmp_path, zygote) as running:
        creating = asyncio.create_task(running.tasks.create("test", container(slow={"Create": 0.3}), CreateOptions()))
        await eventually(lambda: (running.context.state / "calls").exists())
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        await eventually(lambda: running.left() == NOTHING and not zygote.running)
        async with asyncio.timeout(10):
            # The name is free a little later than the files are gone.
            while not await created(running):
                await asyncio.sleep(0.01)


async def created(running: Daemon) -> bool:
    """Create a task, unless its name is taken."""
    with contextlib.suppress(errors.AlreadyExists):
        return bool(await running.tasks.create("test", container(), CreateOptions()))
    return False


async def test_waiting_does_not_depend_on_the_client(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Clients come and go; the shim is asked once, and the answer is there for whoever asks later."""
    async with daemon(tmp_path, zygote) as running:
        await run(running.tasks, container())
        for _ in range(5):
            gone = asyncio.create_task(running.tasks.wait("test", "box"))
            await asyncio.sleep(0.01)
            gone.cancel()
        staying = asyncio.create_task(running.tasks.wait("test", "box"))
        await running.tasks.kill("test", "box", "", signal.SIGKILL)
        assert (await staying).status == 137
        assert (await running.tasks.wait("test", "box")).status == 137
        assert calls(running).count("Wait") == 1


async def test_a_running_task_is_not_deleted(tmp_path: Path, zygote: ProcessZygote) -> None:
    """The shim's refusal is passed on as it is, and the task is still there."""
    async with daemon(tmp_path, zygote) as running:
        await run(running.tasks, container())
        with pytest.raises(errors.Error, match="cannot delete a running process") as caught:
            await running.tasks.delete("test", "box")
        assert caught.value.code == errors.Code.UNKNOWN
        assert (await running.tasks.get("test", "box")).status == Status.RUNNING
        await running.tasks.kill("test", "box", "", 9)
        assert (await running.tasks.delete("test", "box")).status == 137


async def test_two_who_delete_get_the_same_answer(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Deleting may be retried while it is under way."""
    async with daemon(tmp_path, zygote) as running:
        await running.tasks.create("test", container(slow={"Delete": 0.2}), CreateOptions())
        first, second = await asyncio.gather(*(running.tasks.delete("test", "box") for _ in range(2)))
        assert first == second
        assert calls(running).count("Delete") == 1


async def test_a_shim_that_knows_the_task_no_more(tmp_path: Path, zygote: ProcessZygote) -> None:
    """NotFound from the shim is passed on, and the task is gone here too."""
    async with daemon(tmp_path, zygote, timeouts={"shim.shutdown": 0.3}) as running:
        await running.tasks.create("test", container(fail={"Delete": [5, "unknown"]}), CreateOptions())
        with pytest.raises(errors.NotFound, match="unknown"):
            await running.tasks.delete("test", "box")
        assert running.left() == NOTHING


async def test_a_frozen_shim_does_not_keep_its_task_for_ever(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Nothing of the task runs, so the shim is killed and the task is deleted."""
    async with daemon(tmp_path, zygote, config=Config(request_timeout=3.0)) as running:
        await running.tasks.create("test", container(pid=NO_PROCESS, hang=["Delete"]), CreateOptions())
        exit = await running.tasks.delete("test", "box")
        assert (exit.pid, exit.status) == (NO_PROCESS, 137)
        assert running.left() == NOTHING
        assert running.exchange.topics == ["/tasks/exit", "/tasks/delete"]


async def test_a_frozen_shim_with_a_live_container_is_left_alone(tmp_path: Path, zygote: ProcessZygote) -> None:
    """The error names task and step, and nobody is killed."""
    async with daemon(tmp_path, zygote, config=Config(request_timeout=3.0)) as running:
        await running.tasks.create("test", container(hang=["Delete"]), CreateOptions())
        with pytest.raises(errors.DeadlineExceeded, match=r"task box: Delete: no answer to Delete within 3 s"):
            await running.tasks.delete("test", "box")
        assert zygote.running


async def test_when_a_shim_dies_its_end_is_told(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Whoever waits gets 137; TaskExit and TaskDelete are published, in this order; all is cleaned up."""
    async with daemon(tmp_path, zygote) as running:
        pid = await run(running.tasks, container())
        waiting = asyncio.create_task(running.tasks.wait("test", "box"))
        await asyncio.sleep(0.05)
        os.kill(zygote.children[0].pid, signal.SIGKILL)

        exit = await asyncio.wait_for(waiting, 10)

        assert (exit.pid, exit.status) == (pid, 137)
        assert abs(exit.at - time.time_ns()) < 20e9
        assert running.exchange.topics == ["/tasks/exit", "/tasks/delete"]
        ended = events_pb.TaskExit.FromString(running.exchange.published[0][2].value)
        assert (ended.container_id, ended.id, ended.pid, ended.exit_status) == ("box", "box", pid, 137)
        assert zygote.entries == ["fake:serve", "fake:cleanup"]
        assert running.left() == NOTHING
        with pytest.raises(errors.NotFound):
            await running.tasks.get("test", "box")
        assert await running.tasks.create("test", container(), CreateOptions())


async def test_a_task_whose_shim_has_just_died_is_not_found(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Whoever asks before all is cleaned up gets the answer of who asks afterwards, not that of a lost connection."""
    async with daemon(tmp_path, zygote) as running:
        for ask in (running.tasks.get, running.tasks.pids, running.tasks.pause):
            os.kill(await run(running.tasks, container()), signal.SIGKILL)
            with pytest.raises(errors.NotFound, match="box"):
                await ask("test", "box")
            assert running.left() == NOTHING


async def test_an_exit_that_was_seen_is_not_told_differently(tmp_path: Path, zygote: ProcessZygote) -> None:
    """The shim dies after its container: the events carry the status that is known."""
    async with daemon(tmp_path, zygote) as running:
        await run(running.tasks, container())
        await running.tasks.kill("test", "box", "", signal.SIGTERM)
        assert (await running.tasks.wait("test", "box")).status == 143
        os.kill(zygote.children[0].pid, signal.SIGKILL)
        await eventually(lambda: len(running.exchange.topics) == 2)
        deleted = events_pb.TaskDelete.FromString(running.exchange.published[1][2].value)
        assert deleted.exit_status == 143


@pytest.mark.parametrize(
    ("trouble", "seconds", "reason"),
    [
        ({"hang": ["cleanup"]}, 0.3, r"cleaning up did not end within [\d.]+ s and was killed"),
        ({"die": ["cleanup"]}, 20.0, "what cleans up was killed"),
        ({"unclean": "runc delete ended with 1"}, 20.0, "runc delete ended with 1"),
    ],
    ids=["hangs", "dies", "fails"],
)
async def test_what_cannot_be_cleaned_up_is_kept_and_tried_again(
    tmp_path: Path,
    zygote: ProcessZygote,
    caplog: pytest.LogCaptureFixture,
    trouble: dict[str, Any],
    seconds: float,
    reason: str,
) -> None:
    """The bundle and the name stay until it succeeds, and the log says why; the end of the process is told at once."""
    caplog.set_level(logging.INFO)
    async with daemon(tmp_path, zygote, timeouts={"shim.cleanup": seconds}) as running:
        await run(running.tasks, container(**trouble))
        await killed(running, zygote.children[0].pid)
        assert running.exchange.topics == ["/tasks/exit", "/tasks/delete"]
        with pytest.raises(errors.NotFound):
            await running.tasks.get("test", "box")
        assert running.bundles == ["box"]
        with pytest.raises(errors.AlreadyExists, match=f"what an earlier one left cannot be removed yet: {reason}"):
            await running.tasks.create("test", container(), CreateOptions())
        (running.context.state / "test/box/config.json").write_text("{}")
        await eventually(lambda: "had left is gone now" in caplog.text, 60)
        assert running.left() == NOTHING
        assert zygote.entries.count("fake:cleanup") >= 2
        assert running.exchange.topics == ["/tasks/exit", "/tasks/delete"]
        await run(running.tasks, container())
    assert "trying again: " in caplog.text


async def test_a_container_that_outlives_its_shim_is_not_said_to_have_ended(
    tmp_path: Path, zygote: ProcessZygote, caplog: pytest.LogCaptureFixture
) -> None:
    """While it cannot be ended, waits go on, it is listed as unknown, and what else is asked says why it fails."""
    timeouts = {"shim.cleanup": 1.0, "shim.shutdown": 0.3}
    with subprocess.Popen(["sleep", "1000"]) as init:
        try:
            async with daemon(tmp_path, zygote, timeouts=timeouts) as running:
                await run(running.tasks, container(pid=init.pid, unclean="no runc"))
                waiting = asyncio.create_task(killed(running, zygote.children[0].pid))
                await eventually(lambda: "no runc" in caplog.text, 60)
                found = await running.tasks.list("test")
                assert [(each.pid, each.status) for each in found] == [(init.pid, Status.UNKNOWN)]
                for ask in (running.tasks.delete, running.tasks.pause):
                    with pytest.raises(errors.Unavailable, match="its container has not gone yet: no runc"):
                        await ask("test", "box")
                assert running.exchange.topics == []
                init.kill()
                assert (await asyncio.wait_for(waiting, 10)).status == 137
                assert running.bundles == ["box"]
        finally:
            init.kill()


async def test_a_dead_shim_is_cleaned_up_when_there_is_a_zygote_again(tmp_path: Path, zygote: ProcessZygote) -> None:
    """The events come at once, even when nothing can be forked."""
    async with daemon(tmp_path, zygote) as running:
        await run(running.tasks, container())
        zygote.broken = True
        os.kill(zygote.children[0].pid, signal.SIGKILL)
        await eventually(lambda: len(running.exchange.topics) == 2)
        assert running.bundles == ["box"]
        zygote.broken = False
        await eventually(lambda: running.left() == NOTHING, 60)


async def test_a_defect_of_what_cleans_up_keeps_nobody_waiting(
    tmp_path: Path, zygote: ProcessZygote, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has it, and whoever waits for the task gets an answer."""
    async with daemon(tmp_path, zygote) as running:
        await run(running.tasks, container())
        zygote.defective = True
        assert (await asyncio.wait_for(killed(running, zygote.children[0].pid), 10)).status == 137
        assert "the zygote has a defect on purpose" in caplog.text
        assert running.exchange.topics == ["/tasks/exit", "/tasks/delete"]


async def test_delete_of_a_task_whose_shim_dies_in_it(tmp_path: Path, zygote: ProcessZygote) -> None:
    """The task is gone, which is what was asked for."""
    async with daemon(tmp_path, zygote) as running:
        await running.tasks.create("test", container(die=["Delete"]), CreateOptions())
        assert (await running.tasks.delete("test", "box")).status == 137
        assert running.left() == NOTHING


async def test_a_shim_of_version_2_is_spoken_to_in_it(tmp_path: Path, zygote: ProcessZygote) -> None:
    """It is found out once."""
    async with daemon(tmp_path, zygote) as running:
        await run(running.tasks, container(version=2))
        lines = (running.context.state / "calls").read_text().splitlines()
        assert lines == [
            "containerd.task.v3.Task Create", "containerd.task.v2.Task Create", "containerd.task.v2.Task Start",
        ]  # fmt: skip


async def test_get_has_a_deadline_and_list_leaves_out_who_misses_it(tmp_path: Path, zygote: ProcessZygote) -> None:
    """One shim that hangs costs its own task only; another failure is status UNKNOWN."""
    async with daemon(tmp_path, zygote, timeouts={"task.state": 0.3}) as running:
        options = CreateOptions()
        await running.tasks.create("test", container("good"), options)
        await running.tasks.create("test", container("stuck", hang=["State"]), options)
        await running.tasks.create("test", container("odd", fail={"State": [13, "?"]}), options)
        await running.tasks.create("other", container("else"), options)

        with pytest.raises(errors.DeadlineExceeded, match=r"task stuck: State: no answer to State within 0\.3 s"):
            await running.tasks.get("test", "stuck")
        assert (await running.tasks.get("test", "odd")).status == Status.UNKNOWN
        found = {process.container_id: process.status for process in await running.tasks.list("test")}
        assert found == {"good": Status.CREATED, "odd": Status.UNKNOWN}
        assert await running.tasks.list("empty") == []


async def test_metrics_are_of_those_that_can_be_measured(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Those of the namespace, or those that are named."""
    async with daemon(tmp_path, zygote, timeouts={"metrics.shimstats": 0.3}) as running:
        for box in (container("a"), container("b"), container("stuck", hang=["Stats"])):
            await running.tasks.create("test", box, CreateOptions())
        assert sorted(metric.id for metric in await running.tasks.metrics("test")) == ["a", "b"]
        (only,) = await running.tasks.metrics("test", ["b"])
        assert only.data == Payload("io.containerd.cgroups.v2.Metrics", b"\x0a\x00")


async def test_execs_live_and_die_beside_the_init(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Their IDs may be used again after they were deleted."""
    async with daemon(tmp_path, zygote) as running:
        tasks, init = running.tasks, await run(running.tasks, container())
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            await tasks.exec("test", "box", "more", PROCESS, IO())
            assert await tasks.start("test", "box", "more") == init + 1
            waiting = asyncio.create_task(tasks.wait("test", "box", "more"))
            await asyncio.sleep(0.02)
            await tasks.kill("test", "box", "more", signal_number)
            exit = await waiting
            assert (exit.pid, exit.status) == (init + 1, 128 + signal_number)
            assert (await tasks.delete_process("test", "box", "more")).status == 128 + signal_number
        with pytest.raises(errors.NotFound):
            await tasks.wait("test", "box", "more")
        for bad in ("", "a/b"):
            with pytest.raises(errors.InvalidArgument):
                await tasks.exec("test", "box", bad, PROCESS, IO())
            with pytest.raises(errors.InvalidArgument):
                await tasks.delete_process("test", "box", bad)
        assert [process.pid for process in await tasks.pids("test", "box")] == [init]


async def test_calls_for_no_task_are_not_found(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Whatever they are."""
    async with daemon(tmp_path, zygote) as running:
        tasks = running.tasks
        for call in (
            tasks.start("test", "no"),
            tasks.delete("test", "no"),
            tasks.delete_process("test", "no", "x"),
            tasks.get("test", "no"),
            tasks.kill("test", "no", "", 9),
            tasks.exec("test", "no", "x", PROCESS, IO()),
            tasks.resize_pty("test", "no", "", 80, 25),
            tasks.close_stdin("test", "no", ""),
            tasks.pause("test", "no"),
            tasks.resume("test", "no"),
            tasks.pids("test", "no"),
            tasks.checkpoint("test", "no", "/x", None),
            tasks.update("test", "no", Resources(PROCESS)),
            tasks.wait("test", "no"),
        ):
            with pytest.raises(errors.NotFound, match="task no does not exist"):
                await call


async def test_plugins_may_adjust_the_spec(tmp_path: Path, zygote: ProcessZygote) -> None:
    """What they change is what the shim finds in the bundle; otherwise the bytes are the client's."""

    class Participant:
        @hookimpl
        def adjust_spec(self, namespace: str, container: Container, spec: dict[str, Any]) -> None:
            spec["seen"] = [namespace, container.id]

    async with daemon(tmp_path, zygote) as running:
        config = running.context.state / "test/box/config.json"
        await running.tasks.create("test", container(odd=1), CreateOptions())
        box = container(odd=1)
        assert box.spec is not None
        assert config.read_bytes() == box.spec.value
        await running.tasks.delete("test", "box")
        running.context.hooks.add(Participant(), Gate("test", own_loop=True), [ContainerHooks])
        await running.tasks.create("test", container(odd=1), CreateOptions())
        assert json.loads(config.read_bytes()) == {"odd": 1, "seen": ["test", "box"]}


async def test_a_shim_without_cleanup_leaves_no_bundle_either(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Its plugin offers none, so nothing is forked; events are told, and what the daemon made is removed."""
    shims = {"fake": ForkedShim(runtimes=(RUNTIME,), entry="fake:serve")}
    async with daemon(tmp_path, zygote, shims) as running:
        await run(running.tasks, container())
        os.kill(zygote.children[0].pid, signal.SIGKILL)
        await eventually(lambda: len(running.exchange.topics) == 2 and running.left() == NOTHING)
        assert zygote.entries == ["fake:serve"]


@pytest.mark.parametrize("path", ["/", "//", "/..", "/a/../..", "."])
def test_a_container_in_the_root_cgroup_is_refused(path: str) -> None:
    """Some OCI runtimes kill all that is in a container's cgroup at its end."""
    with pytest.raises(errors.InvalidArgument, match="root cgroup"):
        refuse_root_cgroup("box", {"linux": {"cgroupsPath": path}})


@pytest.mark.parametrize("path", ["", "/default/box", "box", "system.slice:windlass:box"])
def test_other_cgroups_are_the_clients_choice(path: str) -> None:
    """Also those that runtimes choose, and systemd's names."""
    refuse_root_cgroup("box", {"linux": {"cgroupsPath": path}})
    refuse_root_cgroup("box", {})


async def test_beyond_a_thousand_descriptors_all_is_as_before(tmp_path: Path, zygote: ProcessZygote) -> None:
    """With 1,500 open: a deletion and a shim's death are finished, waits answer, names are free, no pidfd is left."""
    with descriptors(1500):
        async with daemon(tmp_path, zygote) as running:
            before = open_pidfds()
            pid = await run(running.tasks, container())
            assert (await asyncio.wait_for(killed(running, zygote.children[0].pid), 10)).pid == pid
            await run(running.tasks, container())
            await running.tasks.kill("test", "box", "", signal.SIGTERM)
            assert (await asyncio.wait_for(running.tasks.delete("test", "box"), 10)).status == 143
            await eventually(lambda: not zygote.running)
            await run(running.tasks, container())
            await killed(running, zygote.running[0])
            await eventually(lambda: open_pidfds() == before)
            assert running.left() == NOTHING


async def killed(running: Daemon, shim: int) -> Exit:
    """Kill a shim whose task is box, and return how the task ended."""
    waiting = asyncio.create_task(running.tasks.wait("test", "box"))
    await asyncio.sleep(0.05)
    os.kill(shim, signal.SIGKILL)
    return await waiting


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Have so many open that whatever is opened meanwhile has a higher number."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 2 * count:
        pytest.skip(f"the hard limit of open files is {limits[1]}; raise it to {2 * count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    opened = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(count)]
    try:
        yield
    finally:
        for fd in opened:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def open_pidfds() -> int:
    """Return how many processes this one has a descriptor of."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[pidfd]"
    return count
