"""Boot: every plugin has a record, failures stay where they happen, stop runs backwards."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from windlass.boot import INIT_TIMEOUT, STOP_TIMEOUT, Daemon
from windlass.config import required
from windlass.contracts.containers import ContainerHooks
from windlass.contracts.images import ImageHooks
from windlass.contracts.values import Descriptor
from windlass.discovery import Found
from windlass.errors import FailedPrecondition, NoSpace, NotFound, StartError, Unavailable
from windlass.hooks import hookimpl
from windlass.plugin import HOOK, SKIP, InitContext, Plugin, PluginType, Record, SkipPlugin, State, contract
from windlass.process.directories import close_to_others

A: PluginType[Any] = PluginType("type.a")
B: PluginType[Any] = PluginType("type.b")
C = TypeVar("C")


@dataclass
class Settings:
    """What boot asks of a configuration, without files."""

    root: Path = Path("/nowhere/root")
    state: Path = Path("/nowhere/state")
    required_plugins: Collection[str] = ()
    timeouts: Mapping[str, float] = field(default_factory=lambda: {INIT_TIMEOUT: 5.0, STOP_TIMEOUT: 0.2})
    properties: Mapping[str, str] = field(default_factory=dict)

    configured: Collection[str] = ()

    def mark(self, *path: str) -> str:
        return "c.toml:1"

    def check(self, records: Sequence[Record]) -> None:
        required.check(records, self.required_plugins, self.configured, self.mark)

    def plugin_config(self, uri: str, kind: type[C]) -> C:
        return kind()

    def section(self, name: str, kind: type[C]) -> Mapping[str, C]:
        return {}


def plugin(kind: PluginType[Any], id: str, init: Callable[[InitContext], Any], *requires: PluginType[Any]) -> Found:
    declared: Plugin[Any] = Plugin(kind, id=id, init=init, requires=requires)
    return Found(declared.uri, "test 1.0", declared)


async def started(*found: Found, settings: Settings | None = None) -> Daemon:
    settings = settings or Settings()
    daemon = Daemon(found, settings, close_to_others, lambda records: settings.check(records))
    await daemon.start()
    return daemon


def record(daemon: Daemon, uri: str) -> Record:
    return next(each for each in daemon.records if each.uri == uri)


def refuse(error: BaseException) -> Callable[[InitContext], None]:
    def init(context: InitContext) -> None:
        raise error

    return init


async def test_a_plugin_that_cannot_work_here_is_skipped_with_its_reason() -> None:
    """`ctr plugins ls` shows a skip by the words that end the message."""
    daemon = await started(plugin(A, "1", refuse(SkipPlugin("/x is not on btrfs"))))
    assert record(daemon, "type.a.1").state == State.SKIPPED
    assert record(daemon, "type.a.1").message == f"/x is not on btrfs: {SKIP}"


async def test_a_plugin_that_raises_is_recorded_and_the_rest_runs() -> None:
    """One broken plugin does not take the daemon down."""
    daemon = await started(plugin(A, "1", refuse(RuntimeError("boom"))), plugin(B, "1", lambda context: "fine"))
    assert (record(daemon, "type.a.1").state, record(daemon, "type.a.1").message) == (State.FAILED, "boom")
    assert record(daemon, "type.b.1").state == State.OK


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), OSError(errno.EDQUOT, "quota"), NoSpace("full")])
async def test_a_plugin_that_finds_no_space_ends_the_daemon(error: Exception) -> None:
    """There may be room when it is started again; half a daemon would stay half of one for months."""
    with pytest.raises(StartError, match=r"plugin type\.a\.1 finds no space: .*; start the daemon again"):
        await started(plugin(A, "1", refuse(error)))


async def test_a_plugin_that_cannot_be_imported_is_a_record_too() -> None:
    """A broken installation shows in the list, not only in the log."""
    daemon = await started(Found("type.a.1", "broken 1.0", error=ImportError("no module named x")))
    assert (record(daemon, "type.a.1").state, record(daemon, "type.a.1").message) == (State.FAILED, "no module named x")


async def test_a_plugin_that_hangs_in_init_is_left_behind() -> None:
    """A hang costs its deadline, not the node."""
    release = threading.Event()
    settings = Settings(timeouts={INIT_TIMEOUT: 0.1})
    begun = time.monotonic()
    daemon = await started(
        plugin(A, "1", lambda context: release.wait(30)), plugin(B, "1", lambda context: "fine"), settings=settings
    )
    release.set()
    assert time.monotonic() - begun < 5
    assert record(daemon, "type.a.1").message == "its init did not return within 0.1 s"
    assert record(daemon, "type.b.1").state == State.OK


async def test_lookups_say_what_is_missing() -> None:
    """None, several, and one that failed are three different errors."""
    problems: dict[str, Exception] = {}

    def look(context: InitContext) -> None:
        none: PluginType[object] = PluginType("type.none")
        lookups: dict[str, Callable[[], object]] = {
            "none": lambda: context.single(none),
            "several": lambda: context.single(B),
            "failed": lambda: context.by_id(B, "bad"),
            "absent": lambda: context.by_id(B, "absent"),
        }
        for name, lookup in lookups.items():
            try:
                lookup()
            except (NotFound, FailedPrecondition) as error:
                problems[name] = error

    await started(plugin(A, "1", look, B), plugin(B, "1", str), plugin(B, "bad", refuse(OSError("disk gone"))))
    assert str(problems["none"]) == "no plugin of type type.none has started"
    assert "several: type.b.1, type.b.bad" in str(problems["several"])
    assert str(problems["failed"]) == "type.b.bad did not start: disk gone"
    assert isinstance(problems["absent"], NotFound)


async def test_all_leaves_out_what_did_not_start() -> None:
    """Whoever takes every plugin of a type gets those that work."""
    seen: dict[str, Any] = {}
    await started(
        plugin(A, "1", lambda context: seen.update(context.all(B)), B),
        plugin(B, "good", lambda context: object()),
        plugin(B, "bad", refuse(OSError("x"))),
        plugin(B, "skipped", refuse(SkipPlugin("x"))),
    )
    assert list(seen) == ["good"]


async def test_a_required_plugin_that_did_not_start_stops_the_daemon() -> None:
    """Every one that is missing is named at once, and what had started is stopped."""
    stopped: list[str] = []

    def init(context: InitContext) -> None:
        context.on_stop(lambda: stopped.append(context.uri))

    settings = Settings(required_plugins=["type.a.1", "type.gone.1"])
    with pytest.raises(StartError) as caught:
        await started(plugin(A, "1", refuse(OSError("no disk"))), plugin(B, "1", init), settings=settings)
    assert str(caught.value).splitlines() == [
        "c.toml:1: required plugin type.a.1 is failed: no disk",
        "c.toml:1: required plugin type.gone.1 is not installed",
    ]
    assert stopped == ["type.b.1"]


async def test_plugins_stop_in_reverse_order_and_all_of_them() -> None:
    """One that raises and one that hangs do not keep the others from stopping."""
    stopped: list[str] = []

    def stop(name: str, *, fail: bool = False, hang: bool = False) -> Callable[[InitContext], None]:
        async def callback() -> None:
            stopped.append(name)
            if fail:
                raise RuntimeError("cannot stop")
            if hang:
                await asyncio.sleep(30)

        return lambda context: context.on_stop(callback)

    daemon = await started(
        plugin(A, "1", stop("a1")), plugin(A, "2", stop("a2", fail=True)), plugin(B, "1", stop("b1", hang=True), A)
    )
    await daemon.stop()
    assert stopped == ["b1", "a2", "a1"]


class Panic(BaseException):
    """As extensions in Rust raise: no Exception."""


async def let_a_cancellation_pass() -> None:
    """Do what many do at a stop: cancel a task and await it."""
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


async def hold_on() -> None:
    """Not end, although it is cancelled."""
    for _ in range(50):
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            continue


async def panic() -> None:
    raise Panic("a stop callback's")


def leave() -> None:
    raise SystemExit(3)


@pytest.mark.parametrize("callback", [let_a_cancellation_pass, hold_on, panic, leave])
async def test_a_stop_callback_keeps_nobody_from_stopping(
    callback: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it raises, and whether it heeds its cancellation or not."""
    stopped = []
    daemon = await started(
        plugin(A, "1", lambda context: context.on_stop(lambda: stopped.append("a1"))),
        plugin(B, "1", lambda context: context.on_stop(callback), A),
    )
    await daemon.stop()
    assert stopped == ["a1"]
    assert "cannot stop type.b.1: " in caplog.text


@pytest.mark.parametrize("callback", [let_a_cancellation_pass, panic])
async def test_a_start_callback_fails_by_whatever_it_raises(callback: Callable[[], Any]) -> None:
    """The operator gets the plugin's name."""
    with pytest.raises(StartError, match=r"cannot start type\.a\.1: "):
        await started(plugin(A, "1", lambda context: context.on_start(callback)))


async def test_an_init_fails_by_whatever_it_raises() -> None:
    """At once, not when its time is over."""
    daemon = await started(plugin(A, "1", refuse(Panic("at once"))))
    assert record(daemon, "type.a.1").message == "its init raised Panic: at once"


async def test_whatever_a_stop_callback_returns_is_awaited() -> None:
    """A lambda around a coroutine function is a callback like any other."""
    stopped = []

    async def stop(name: str) -> None:
        stopped.append(name)

    daemon = await started(plugin(A, "one", lambda context: context.on_stop(lambda: stop("one"))))
    await daemon.stop()
    assert stopped == ["one"]


async def test_start_callbacks_run_when_every_plugin_is_initialised() -> None:
    """A server so finds every service, whatever the order."""
    events: list[str] = []

    def server(context: InitContext) -> None:
        async def start() -> None:
            events.append("listening")

        context.on_start(start)

    await started(plugin(A, "1", server), plugin(B, "1", lambda context: events.append("b"), A))
    assert events == ["b", "listening"]


async def test_a_server_that_cannot_listen_stops_the_daemon() -> None:
    """The error names the plugin and what was wrong."""

    def server(context: InitContext) -> None:
        async def start() -> None:
            raise FailedPrecondition("/x is in use by another daemon")

        context.on_start(start)

    with pytest.raises(StartError, match=r"cannot start type\.a\.1: /x is in use"):
        await started(plugin(A, "1", server))


async def test_the_daemon_is_ready_when_everyone_has_said_so() -> None:
    """systemd is told when the work that plugins do in the background is done."""
    done: list[Callable[[], None]] = []
    daemon = await started(plugin(A, "1", lambda context: done.append(context.register_readiness())))
    waiting = asyncio.create_task(daemon.wait_ready())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    done[0]()
    await asyncio.wait_for(waiting, 5)


async def test_a_plugin_gets_directories_of_its_own() -> None:
    """Named by its URI, and not created for it."""
    seen: list[Path] = []
    await started(plugin(A, "1", lambda context: seen.extend((context.root, context.state))))
    assert seen == [Path("/nowhere/root/type.a.1"), Path("/nowhere/state/type.a.1")]


@contract
class Reads(Protocol):
    def read(self) -> str: ...

    def close(self) -> None: ...


READS: PluginType[Any] = PluginType("type.reads", Reads)


class Half:
    async def read(self) -> str:
        return ""


class Inherits(Reads):
    """Has what a contract declares without a body, as a class that names its contract does."""

    def close(self) -> None: ...


class Waits(Half):
    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("instance", "told"),
    [
        (None, "its init returned None; it must return an object with the methods of Reads"),
        (object(), "its init returned an object of class object, which lacks close, read of Reads"),
        (Half(), "its init returned an object of class Half, which lacks close of Reads"),
        (Inherits(), "its init returned an object of class Inherits, which lacks read of Reads"),  # type: ignore[abstract] # so it is
        (Waits(), "its read is async, and that of Reads is not"),
    ],
)
async def test_an_instance_without_the_contracts_methods_is_a_failure(instance: object, told: str) -> None:
    """At its start, by name: a caller would find it as an AttributeError much later."""
    daemon = await started(plugin(READS, "1", lambda context: instance))
    assert (record(daemon, "type.reads.1").state, record(daemon, "type.reads.1").message) == (State.FAILED, told)


@pytest.mark.parametrize(
    ("error", "told"), [(KeyError("x"), "KeyError: 'x' at "), (RuntimeError(), "RuntimeError at ")]
)
async def test_a_defect_is_told_with_its_class_and_place(
    error: Exception, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A KeyError's own text is a key, which helps nobody."""
    daemon = await started(plugin(A, "1", refuse(error)))
    message = record(daemon, "type.a.1").message
    assert message.startswith(told)
    assert f"plugin type.a.1 did not start: {told.removesuffix(' at ')}" in caplog.text
    assert "test_boot.py:" in message


def hook(id: str, init: Callable[[InitContext], object]) -> Found:
    declared = Plugin(HOOK, id=id, init=init, steps=(ImageHooks,))
    return Found(declared.uri, "test 1.0", declared)


DESC = Descriptor("m", "sha256:" + 64 * "0", 1)


class Admits:
    @hookimpl(specname="admit_image")
    def admit(self, name: str) -> None:
        if name == "bad":
            raise KeyError(name)


async def test_what_init_of_a_hook_plugin_returns_takes_part() -> None:
    """In the steps of the classes that its declaration names, behind its own gate."""
    daemon = await started(hook("1", lambda context: Admits()))
    await daemon.hooks.call(ImageHooks.admit_image, "n", "good", DESC)
    with pytest.raises(FailedPrecondition, match=r"io\.windlass\.hook\.v1\.1 refuses admit_image: KeyError: 'bad'"):
        await daemon.hooks.call(ImageHooks.admit_image, "n", "bad", DESC)
    account = daemon.gates[f"{HOOK.uri}.1"].accounts["admit_image"]
    assert (account.calls, account.failures) == (2, 1)
    await daemon.stop()


async def test_a_plugin_that_did_not_start_takes_part_in_no_step() -> None:
    """The closed steps that it lost are known, unless it skipped itself."""
    daemon = await started(hook("fails", refuse(KeyError("x"))), hook("skips", refuse(SkipPlugin("x"))))
    uri = f"{HOOK.uri}.fails"
    assert daemon.hooks.missing(ImageHooks.admit_image) == {uri: record(daemon, uri).message}
    assert not daemon.hooks.wanted(ContainerHooks.adjust_spec)
    with pytest.raises(FailedPrecondition, match=rf"{uri} did not start and might refuse admit_image; mend it, or"):
        await daemon.hooks.call(ImageHooks.admit_image, "n", "good", DESC)


async def test_a_hook_plugin_that_cannot_be_imported_is_missed_by_every_closed_step() -> None:
    """Which steps it wanted a say in stands in the module that cannot be imported."""
    uri = f"{HOOK.uri}.broken"
    daemon = await started(Found(uri, "broken 1.0", error=ImportError("no module named x")))
    missing = {uri: "no module named x"}
    assert daemon.hooks.missing(ImageHooks.admit_image) == missing
    assert daemon.hooks.missing(ContainerHooks.adjust_spec) == missing


async def test_a_hook_plugin_whose_init_returns_late_takes_no_part() -> None:
    """Its record says that it failed, so its object is not there either, however late it comes."""
    release = threading.Event()

    def init(context: InitContext) -> Admits:
        release.wait(30)
        return Admits()

    daemon = await started(hook("late", init), settings=Settings(timeouts={INIT_TIMEOUT: 0.1}))
    release.set()
    while any(thread.name == f"init {HOOK.uri}.late" for thread in threading.enumerate()):
        await asyncio.sleep(0.01)
    assert record(daemon, f"{HOOK.uri}.late").message == "its init did not return within 0.1 s"
    assert daemon.hooks.missing(ImageHooks.admit_image)


async def test_plugins_share_one_init_thread_until_one_hangs_in_it() -> None:
    """The plugins after it get another thread, which they share again; nothing waits for the one left behind."""
    release, threads = threading.Event(), dict[str, int]()

    def init(context: InitContext) -> object:
        threads[context.uri] = threading.get_ident()
        if context.uri.endswith("c"):
            release.wait(30)
        return object()

    found = [plugin(A, id, init) for id in "abcde"]
    try:
        daemon = await started(*found, settings=Settings(timeouts={INIT_TIMEOUT: 0.2}))
        assert [record(daemon, f"type.a.{id}").state for id in "abcde"] == ["ok", "ok", "failed", "ok", "ok"]
        assert threads["type.a.a"] == threads["type.a.b"] == threads["type.a.c"]
        assert threads["type.a.d"] == threads["type.a.e"] != threads["type.a.a"]
        while {each.name for each in threading.enumerate() if each.name.startswith("init ")} != {"init type.a.c"}:
            await asyncio.sleep(0.01)  # the other ends by itself
    finally:
        release.set()


class Misspells:
    @hookimpl
    def admit_imag(self, name: str) -> None: ...


class AsksForMore:
    @hookimpl
    def admit_image(self, reference: str) -> None: ...


@pytest.mark.parametrize(
    ("instance", "told"),
    [
        (None, "takes part in no step; mark methods of what its init returns with hookimpl"),
        (Misspells(), 'there is no step "admit_imag"; did you mean "admit_image"?'),
        (AsksForMore(), 'admit_image has no argument "reference"; it has desc, name, namespace'),
    ],
)
async def test_a_hook_plugin_with_a_mistake_fails_alone(instance: object, told: str) -> None:
    """Its record says what to change; the others start, and its closed step is known to lack it."""
    daemon = await started(hook("1", lambda context: instance), plugin(B, "1", lambda context: "fine"))
    failed = record(daemon, f"{HOOK.uri}.1")
    assert failed.state == State.FAILED
    assert told in failed.message
    assert list(daemon.hooks.missing(ImageHooks.admit_image)) == [f"{HOOK.uri}.1"]
    assert record(daemon, "type.b.1").state == State.OK


async def test_a_plugin_with_a_block_may_be_skipped_and_must_not_fail() -> None:
    """Each one that failed is named with the place of its block, and what had started is stopped."""
    stopped: list[str] = []

    def init(context: InitContext) -> None:
        context.on_stop(lambda: stopped.append(context.uri))

    found = [
        plugin(A, "fails", refuse(KeyError("x"))),
        plugin(A, "skips", refuse(SkipPlugin("x"))),
        plugin(B, "1", init),
    ]
    found.append(Found("type.b.disabled", "test 1.0"))
    configured = ["type.a.fails", "type.a.skips", "type.b.1", "type.b.disabled", "type.gone.1"]
    with pytest.raises(StartError) as caught:
        await started(*found, settings=Settings(configured=configured))
    lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("c.toml:1: plugin type.a.fails, which has a block here, did not start: KeyError: 'x'")
    assert stopped == ["type.b.1"]


async def test_a_start_callback_with_a_defect_is_one_line() -> None:
    """It names the plugin and the exception; the log has the stack."""

    def server(context: InitContext) -> None:
        async def start() -> None:
            raise KeyError("x")

        context.on_start(start)

    with pytest.raises(StartError, match=r"cannot start type\.a\.1: KeyError: 'x'"):
        await started(plugin(A, "1", server))


@pytest.mark.parametrize(("mode", "after"), [(0o755, 0o700), (0o777, 0o700), (0o711, 0o711), (0o750, 0o750)])
async def test_a_plugins_directories_are_closed_to_others(tmp_path: Path, mode: int, after: int) -> None:
    """As mkdir makes them they are open; what a plugin chose for itself stays, unless everybody can read it."""

    def init(context: InitContext) -> None:
        for directory in (context.root, context.state):
            directory.mkdir(parents=True)
            directory.chmod(mode)

    await started(plugin(A, "1", init), settings=Settings(root=tmp_path / "root", state=tmp_path / "state"))
    for path in (tmp_path / "root" / "type.a.1", tmp_path / "state" / "type.a.1"):
        assert path.stat().st_mode & 0o777 == after


# What is prepared


def prepared(kind: PluginType[Any], id: str, log: list[str], init: Callable[[InitContext], Any]) -> Found:
    """Return a plugin that prepares something, whose life ``log`` tells."""

    def prepare(context: InitContext) -> str:
        log.append(f"prepare {id}")
        context.on_stop(lambda: log.append(f"release {id}"))
        return f"what {id} has prepared"

    declared: Plugin[Any] = Plugin(kind, id=id, init=init, prepare=prepare)
    return Found(declared.uri, "test 1.0", declared)


async def test_all_is_prepared_before_anything_is_initialised() -> None:
    """And each plugin finds in its context what it has prepared itself."""
    log: list[str] = []

    def init(context: InitContext) -> str:
        log.append(f"init {context.prepared}")
        return "fine"

    daemon = await started(plugin(A, "1", init), prepared(A, "2", log, init), prepared(B, "1", log, init))
    assert log[:2] == ["prepare 2", "prepare 1"]
    assert log[2:] == ["init None", "init what 2 has prepared", "init what 1 has prepared"]
    await daemon.stop()
    assert log[5:] == ["release 1", "release 2"]


async def test_an_early_plugin_is_there_for_what_prepares() -> None:
    """Whatever its place in the order of all would be; others are not there yet."""
    found: list[dict[str, Any]] = []

    def prepare(context: InitContext) -> None:
        found.append(context.all(B))

    early: Plugin[Any] = Plugin(B, id="early", init=lambda context: "early", early=True)
    server: Plugin[Any] = Plugin(A, id="server", init=lambda context: found.append(context.all(B)), prepare=prepare)
    await started(
        plugin(B, "late", lambda context: "late"), Found(server.uri, "t", server), Found(early.uri, "t", early)
    )
    assert [sorted(each) for each in found] == [["early"], ["early"]]


async def test_an_early_plugin_that_fails_is_recorded_like_others() -> None:
    early: Plugin[Any] = Plugin(B, id="early", init=refuse(RuntimeError("boom")), early=True)
    daemon = await started(plugin(A, "1", lambda context: "fine"), Found(early.uri, "t", early))
    assert [(each.uri, each.state) for each in daemon.records] == [("type.b.early", "failed"), ("type.a.1", "ok")]


@pytest.mark.parametrize("more", [{"requires": (B,)}, {"prepare": lambda context: None}])
def test_an_early_plugin_requires_and_prepares_nothing(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="an early plugin cannot require others or prepare anything"):
        Plugin(A, id="1", init=lambda context: None, early=True, **more)


@pytest.mark.parametrize("error", [KeyError("x"), Panic("x")])
async def test_a_preparation_fails_by_whatever_it_raises(error: BaseException) -> None:
    """The daemon does not start, and the operator gets the plugin's name."""

    def prepare(context: InitContext) -> None:
        raise error

    found = Found("type.a.1", "test 1.0", Plugin(A, id="1", init=lambda context: None, prepare=prepare))
    with pytest.raises(StartError, match=r"cannot start type\.a\.1: .*'?x'?"):
        await started(found)


async def test_what_is_prepared_in_vain_is_released() -> None:
    """At once when its plugin fails: nobody would answer at a socket that stays. And when the daemon does not start."""
    log: list[str] = []
    daemon = await started(prepared(A, "1", log, refuse(RuntimeError("boom"))))
    assert log == ["prepare 1", "release 1"]
    await daemon.stop()
    assert log == ["prepare 1", "release 1"]

    def fail(context: InitContext) -> None:
        raise FailedPrecondition("the address is in use")

    broken: Plugin[Any] = Plugin(B, id="1", init=lambda context: "fine", prepare=fail)
    with pytest.raises(StartError, match=r"cannot start type\.b\.1: the address is in use"):
        await started(prepared(A, "1", log, lambda context: "fine"), Found(broken.uri, "test 1.0", broken))
    assert log[2:] == ["prepare 1", "release 1"]


async def test_one_of_several_cannot_be_the_only_one() -> None:
    """The one that asks learns which there are; a plugin that was skipped is none of them."""
    asked: list[object] = []
    found = [plugin(B, id, lambda context: object()) for id in "12"]
    skipped = plugin(B, "3", refuse(SkipPlugin("no btrfs")))
    daemon = await started(*found, skipped, plugin(A, "1", lambda context: context.single(B), B))
    reason = "one plugin of type type.b is needed and there are several: type.b.1, type.b.2"
    assert record(daemon, "type.a.1").message == reason

    await started(found[0], skipped, plugin(A, "1", lambda context: asked.append(context.single(B)), B))
    assert repr(asked) == "[<type.b.1>]"


async def test_a_plugin_that_failed_publishes_nothing() -> None:
    """Clients would choose it by its capabilities; one that started has what it published."""

    def publish(context: InitContext) -> None:
        context.meta.capabilities.append("remap-ids")
        context.meta.exports["root"] = str(context.root)

    def fail(context: InitContext) -> None:
        publish(context)
        raise OSError("no disk")

    daemon = await started(plugin(A, "1", publish), plugin(B, "1", fail))
    assert record(daemon, "type.a.1").meta.capabilities == ["remap-ids"]
    failed = record(daemon, "type.b.1").meta
    assert (failed.capabilities, failed.exports) == ([], {})


async def test_seconds_are_the_files_then_the_kernels() -> None:
    """A key that neither knows is one second, so that no plugin waits for ever."""
    seen: list[float] = []

    def init(context: InitContext) -> None:
        seen.extend(context.timeout(key) for key in (STOP_TIMEOUT, INIT_TIMEOUT, "theirs", "no.such"))

    await started(plugin(A, "1", init), settings=Settings(timeouts={STOP_TIMEOUT: 0.5, "theirs": 7.0}))
    assert seen == [0.5, 30.0, 7.0, 1.0]


async def test_gates_are_of_those_that_started_and_close_at_the_stop() -> None:
    """Who shows accounts sees each as soon as it runs; a call after the stop is refused, not lost."""
    seen: list[list[str]] = []
    daemon = await started(
        plugin(B, "1", lambda context: object()),
        plugin(B, "2", refuse(OSError("x"))),
        plugin(A, "1", lambda context: seen.append([*context.gates()]), B),
    )
    assert seen == [["type.b.1"]]
    assert [*daemon.gates] == ["type.b.1", "type.a.1"]
    gate = daemon.gates["type.b.1"]
    await daemon.stop()
    with pytest.raises(Unavailable, match=r"type\.b\.1 has been stopped"):
        gate.pool.submit(lambda: None, None)


async def test_records_are_seen_in_start_order_as_they_come() -> None:
    """A plugin that lists them sees those before it, and later all, with those that cannot be imported first."""
    seen: list[list[str]] = []
    contexts: list[InitContext] = []

    def init(context: InitContext) -> None:
        contexts.append(context)
        seen.append([each.uri for each in context.records()])

    absent = Found("type.z.1", "broken 1.0", error=ImportError("x"))
    daemon = await started(plugin(A, "1", init, B), plugin(B, "1", lambda context: None), absent)
    assert seen == [["type.z.1", "type.b.1"]]
    assert contexts[0].records() == daemon.records
    assert [each.uri for each in daemon.records] == ["type.z.1", "type.b.1", "type.a.1"]
    assert record(daemon, "type.a.1").requires == ("type.b",)


async def test_stop_callbacks_of_one_plugin_run_backwards_and_once() -> None:
    """What was opened last is closed first, also when the daemon is stopped twice."""
    stopped: list[int] = []

    def init(context: InitContext) -> None:
        for number in range(3):
            context.on_stop(partial(stopped.append, number))

    daemon = await started(plugin(A, "1", init))
    await daemon.stop()
    await daemon.stop()
    assert stopped == [2, 1, 0]


async def test_a_plugin_that_failed_stops_what_it_had_begun() -> None:
    """Its callbacks are there before its init fails."""
    stopped: list[str] = []

    def init(context: InitContext) -> None:
        context.on_stop(lambda: stopped.append("closed"))
        raise OSError("no disk")

    daemon = await started(plugin(A, "1", init))
    await daemon.stop()
    assert stopped == ["closed"]


async def test_a_readiness_that_fails_ends_the_daemon() -> None:
    """systemd would wait for ever for a plugin that has promised to say when it is ready and then failed."""

    def init(context: InitContext) -> None:
        context.register_readiness()
        raise OSError("no disk")

    reason = r"^plugin type\.a\.1, for which readiness waits, did not start: no disk$"
    with pytest.raises(StartError, match=reason):
        await started(plugin(A, "1", init))
