"""The watchdog names what holds a loop up, and a plugin's own loop holds up nobody else's."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from windlass.discovery import Found
from windlass.errors import Unavailable
from windlass.gate import Gate, Handle
from windlass.ownloop import Loop, OwnLoop, running
from windlass.plugin import Plugin, PluginType
from windlass.process.owners import owners_of
from windlass.process.watchdog import Watch, Watchdog

OWN = __name__.partition(".")[0]


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    yield watchdog
    watchdog.stop()
    running.clear()


def logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if text in caplog.text:
            return True
        time.sleep(0.02)
    return False


async def test_what_holds_the_loop_up_is_named_with_its_place(
    watchdog: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    """While it lasts, and the log says when it is over and how long it was."""
    running[asyncio.get_running_loop()] = Loop(threading.get_ident(), "the loop", "do not")
    watchdog.start({OWN: "plugin type.a.1"})
    await asyncio.sleep(0.5)

    assert logged(caplog, "the loop has been held up for")  # it blocks until it is seen

    await asyncio.sleep(0.5)
    assert "by plugin type.a.1 at " in caplog.text
    assert "test_watchdog.py" in caplog.text
    assert "(logged); do not" in caplog.text
    assert caplog.text.count("has been held up") == 1
    assert caplog.text.count("the loop goes on after ") == 1


async def test_a_loop_that_waits_or_works_in_small_steps_is_fine(
    watchdog: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread that looks costs the loop nothing while it waits."""
    loop, frames = asyncio.get_running_loop(), sys._current_frames()
    watch = Watch(loop, threading.get_ident(), "the loop", "do not")
    for _ in range(20):
        watch.look({threading.get_ident(): sys._getframe()}, {})
        await asyncio.sleep(0.1)
    del frames
    assert "held up" not in caplog.text


def test_a_loop_that_waits_is_not_woken() -> None:
    """An idle daemon stays idle."""
    loop, woken = asyncio.new_event_loop(), []
    loop.call_soon_threadsafe = lambda *_, **__: woken.append(1)  # type: ignore[assignment, method-assign] # counts
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        assert thread.ident is not None
        watch = Watch(loop, thread.ident, "the loop", "do not")
        time.sleep(0.2)
        for _ in range(5):
            watch.look(sys._current_frames(), {})
        assert not woken
    finally:
        del loop.call_soon_threadsafe
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_code_is_found_by_its_package() -> None:
    """A package with one plugin is that plugin; one with several is told by its distribution."""

    def made(id: str, module: str) -> Found:
        def init(context: object) -> None: ...

        init.__module__ = module
        declared: Plugin[None] = Plugin(PluginType("type.a"), id=id, init=init)
        return Found(declared.uri, f"{module.partition('.')[0]} 1.0", declared)

    found = [made("1", "one.plugin"), made("2", "two.plugin"), made("3", "two.plugin"), Found("type.a.4", "x")]
    assert owners_of(found) == {"one": "plugin type.a.1", "two": "a plugin of two 1.0"}


class Verifier:
    """An instance whose methods block, wait, exit, and say where they run."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.begun = threading.Event()

    async def block(self) -> str:
        time.sleep(1)
        return threading.current_thread().name

    async def wait(self) -> None:
        self.begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def exit(self) -> None:
        sys.exit(3)

    async def exit_later(self) -> None:
        async def leave() -> None:
            sys.exit(4)

        self.leaving = asyncio.create_task(leave())
        await asyncio.wait({self.leaving})
        # Looked at here: else asyncio complains when the task is collected, which may be in the middle of another test,
        # and Python 3.11's `ast.parse` fails with SystemError if it is then at work.
        assert isinstance(self.leaving.exception(), SystemExit)

    async def answer(self) -> str:
        return "answered"


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate("type.verifier.1", own_loop=True)
    yield gate
    gate.close()


@pytest.fixture
def handle(gate: Gate) -> Verifier:
    return Handle(Verifier(), gate)  # type: ignore[return-value] # a handle has the methods of what it stands for


async def test_a_method_that_blocks_its_own_loop_leaves_ours_free(handle: Verifier) -> None:
    """The caller waits for it, and everybody else goes on."""
    blocked, steps = asyncio.create_task(handle.block()), 0
    while not blocked.done():
        await asyncio.sleep(0.01)
        steps += 1
    assert await blocked == "loop type.verifier.1"
    assert steps > 10


async def test_a_cancellation_reaches_the_method(handle: Verifier) -> None:
    """A client that gives up ends what was done for it."""
    waiting = asyncio.create_task(handle.wait())
    await asyncio.to_thread(handle.begun.wait, 10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.to_thread(handle.cancelled.wait, 10)


async def test_sys_exit_in_a_method_is_its_own_defect(handle: Verifier) -> None:
    """The loop goes on, and takes the next call."""
    for _ in range(2):
        with pytest.raises(RuntimeError, match="SystemExit: 3"):
            await handle.exit()


async def test_sys_exit_in_a_task_of_a_plugin_does_not_end_its_loop(
    handle: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    """The plugin's later calls are answered, as they are on the daemon's loop."""
    await handle.exit_later()
    assert await handle.answer() == "answered"
    assert "ends that task only: SystemExit: 4" in caplog.text


async def test_sys_exit_on_the_daemons_loop_is_too() -> None:
    """A plugin does not end the daemon."""
    handle: Verifier = Handle(Verifier(), Gate("type.verifier.1"))  # type: ignore[assignment] # a handle has the methods of what it stands for
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        await handle.exit()


async def test_a_closed_loop_takes_no_calls_and_ends_those_under_way() -> None:
    """At the daemon's stop nobody waits for a plugin."""
    loop, verifier = OwnLoop("type.verifier.1"), Verifier()
    waiting = asyncio.create_task(loop.run(verifier.wait))
    await asyncio.to_thread(verifier.begun.wait, 10)
    loop.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(Unavailable, match=r"type\.verifier\.1 has been stopped"):
        await loop.run(verifier.wait)


async def test_a_loop_that_has_ended_can_be_closed_again() -> None:
    """A daemon that is told to stop while it starts stops what has started twice."""
    loop, verifier = OwnLoop("type.verifier.1"), Verifier()
    waiting = asyncio.create_task(loop.run(verifier.wait))
    await asyncio.to_thread(verifier.begun.wait, 10)
    thread = next(each for each in threading.enumerate() if each.name == "loop type.verifier.1")
    loop.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.to_thread(thread.join, 10)
    loop.close()
