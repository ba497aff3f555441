"""`compose up` in the foreground: output, ends, ^C, and containers that are started again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from client.compose_engine import MemoryEngine

from windlass.errors import NotFound
from windlass_client.compose.attached import Attached
from windlass_client.compose.files import Sources
from windlass_client.compose.following import Printer, Style
from windlass_client.compose.load import load
from windlass_client.compose.up import Up

TWO = "name: p\nservices: {a: {image: i}, b: {image: i, depends_on: [a]}}"


class Case:
    def __init__(self, directory: Path, text: str, abort: bool = False, decisive: str = "") -> None:
        path = directory / "compose.yaml"
        path.write_text(text)
        self.engine = MemoryEngine("i")
        self.out: list[str] = []
        self.project = load(Sources(directory, (path,), {})).project
        printer = Printer(Style(color=False), "p", self.out.append)
        self.attached = Attached(self.engine, self.project, printer, self.report, abort, decisive)

    def report(self, kind: str, name: str, what: str) -> None:
        pass

    async def run(self) -> int:
        up = Up(self.engine, self.project, self.report, attend=self.attached.attend)
        with self.attached.interruptible():
            await self.attached.bring(up.bring(self.project.services))
            return await self.attached.finish()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)

    def runs(self, *names: str) -> bool:
        running = {each.name for each in self.engine.kept.values() if each.runs}
        return running == set(names)


async def test_it_ends_when_all_have_ended(tmp_path: Path) -> None:
    """Each line with its container's name; the exit code says nothing of theirs."""
    case = Case(tmp_path, TWO)
    running = asyncio.create_task(case.run())
    await case.until(lambda: case.runs("p-a-1", "p-b-1"))
    case.engine.write("p-a-1", "hello")
    await case.until(lambda: case.out)
    case.engine.set(case.engine.named("p-a-1").id, state="exited", exit_code=3)
    await case.until(lambda: len(case.out) == 2)
    case.engine.set(case.engine.named("p-b-1").id, state="exited", exit_code=0)
    assert await running == 0
    assert case.out == ["a-1  | hello\n", "p-a-1 exited with code 3\n", "p-b-1 exited with code 0\n"]


async def test_an_interrupt_stops_all_in_order(tmp_path: Path) -> None:
    """^C leaves the containers stopped, and the exit code is that of ^C."""
    case = Case(tmp_path, TWO)
    running = asyncio.create_task(case.run())
    await case.until(lambda: case.runs("p-a-1", "p-b-1"))
    os.kill(os.getpid(), signal.SIGINT)
    assert await running == 130
    assert case.engine.done[-2:] == ["stop p-b-1", "stop p-a-1"]


async def test_one_that_ends_stops_all(tmp_path: Path) -> None:
    """With --abort-on-container-exit; --exit-code-from says whose code is ours."""
    case = Case(tmp_path, TWO, decisive="a")
    running = asyncio.create_task(case.run())
    await case.until(lambda: case.runs("p-a-1", "p-b-1"))
    case.engine.set(case.engine.named("p-a-1").id, state="exited", exit_code=7)
    assert await running == 7
    assert case.engine.done[-1] == "stop p-b-1"


async def test_a_container_that_is_started_again_is_followed_again(tmp_path: Path) -> None:
    """Its restart policy says whether that can come."""
    case = Case(tmp_path, "name: p\nservices: {a: {image: i, restart: on-failure}}")
    running = asyncio.create_task(case.run())
    await case.until(lambda: case.runs("p-a-1"))
    id = case.engine.named("p-a-1").id
    case.engine.set(id, state="exited", exit_code=1)
    await case.until(lambda: case.out == ["p-a-1 exited with code 1\n"])
    case.engine.set(id, state="running")
    case.engine.write("p-a-1", "again")
    await case.until(lambda: "a-1  | again\n" in case.out)
    case.engine.set(id, state="exited", exit_code=0)
    assert await running == 0


async def test_a_failure_on_the_way_up_is_the_result(tmp_path: Path) -> None:
    """What runs already goes on, as with -d."""
    case = Case(tmp_path, "name: p\nservices: {a: {image: none}}")
    with pytest.raises(NotFound):
        await case.run()
