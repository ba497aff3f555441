"""Start, readiness, and stop in reverse order: what turns declarations into a running daemon."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import stat
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from windlass.config.settings import StreamProcessor
from windlass.discovery import Found
from windlass.errors import (
    DeadlineExceeded,
    Error,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    StartError,
    as_exception,
    is_full,
    with_class,
)
from windlass.gate import Gate, Handle
from windlass.graph import start_order
from windlass.hooks import Hooks
from windlass.ownloop import only_exceptions
from windlass.plugin import InitContext, Meta, Plugin, PluginType, Record, SkipPlugin, State

logger = logging.getLogger(__name__)
T = TypeVar("T")
C = TypeVar("C")

INIT_TIMEOUT = "io.windlass.timeout.plugin.init"
STOP_TIMEOUT = "io.windlass.timeout.plugin.stop"
DEFAULT_TIMEOUTS = {INIT_TIMEOUT: 30.0, STOP_TIMEOUT: 10.0}
UNKNOWN_TIMEOUT = 1.0
UNWIND = 1.0
"""Seconds that a callback of a plugin has to end once it is cancelled."""


class Settings(Protocol):
    """What boot needs to know of the configuration."""

    @property
    def root(self) -> Path:
        """Directory that holds each plugin's persistent directory."""
        ...

    @property
    def state(self) -> Path:
        """Directory that holds each plugin's directory that is lost at boot."""
        ...

    @property
    def required_plugins(self) -> Collection[str]:
        """URIs of plugins without which the daemon must not run."""
        ...

    @property
    def timeouts(self) -> Mapping[str, float]:
        """Seconds by key."""
        ...

    @property
    def properties(self) -> Mapping[str, str]:
        """Facts about the daemon, see `windlass.contracts.properties`."""
        ...

    @property
    def stream_processors(self) -> Mapping[str, StreamProcessor]:
        """Programs that convert layers, by ID."""
        ...

    def mark(self, *path: str) -> object:
        """Return what to write before a message about a value: the file and line that it came from."""
        ...

    def plugin_config(self, uri: str, kind: type[C]) -> C:
        """Return a plugin's validated configuration, or raise with file and line of what is wrong."""
        ...


@dataclass(slots=True)
class _Started:
    """A plugin while the daemon runs: its record, its gate, and what it asked to be called for."""

    record: Record
    gate: Gate | None = None
    handle: object = None
    start: list[Callable[[], Awaitable[None]]] | None = None
    stop: list[Callable[[], Awaitable[None] | None]] | None = None


class Context:
    """The `windlass.plugin.InitContext` of one plugin."""

    def __init__(self, daemon: Daemon, plugin: Plugin[Any]) -> None:  # Any: whatever it provides
        """Serve ``plugin`` from what ``daemon`` has started before it."""
        self._daemon = daemon
        self._plugin = plugin
        self.uri = plugin.uri
        self.root = daemon.settings.root / plugin.uri
        self.state = daemon.settings.state / plugin.uri
        self.meta = Meta()
        self.loop = daemon.loop
        self.properties = daemon.settings.properties
        self.hooks = daemon.hooks
        self.start_callbacks: list[Callable[[], Awaitable[None]]] = []
        self.stop_callbacks: list[Callable[[], Awaitable[None] | None]] = []
        self.holds_readiness = False
        self.prepared: Any = None

    @property
    def stream_processors(self) -> Mapping[str, StreamProcessor]:
        """See `windlass.plugin.InitContext.stream_processors`."""
        return self._daemon.settings.stream_processors

    def config(self, kind: type[C]) -> C:
        """See `windlass.plugin.InitContext.config`."""
        return self._daemon.settings.plugin_config(self.uri, kind)

    def timeout(self, key: str) -> float:
        """See `windlass.plugin.InitContext.timeout`."""
        return self._daemon.timeout(key)

    def single(self, kind: PluginType[T]) -> T:
        """See `windlass.plugin.InitContext.single`."""
        able = [entry for entry in self._daemon.of_type(kind.uri) if entry.record.state != State.SKIPPED]
        if not able:
            raise NotFound(f"no plugin of type {kind.uri} has started")
        if len(able) > 1:
            uris = ", ".join(entry.record.uri for entry in able)
            raise FailedPrecondition(f"one plugin of type {kind.uri} is needed and there are several: {uris}")
        return _instance(able[0], kind)

    def by_id(self, kind: PluginType[T], id: str) -> T:
        """See `windlass.plugin.InitContext.by_id`."""
        for entry in self._daemon.of_type(kind.uri):
            if entry.record.id == id:
                return _instance(entry, kind)
        raise NotFound(f"plugin {kind.uri}.{id} has not started")

    def all(self, kind: PluginType[T]) -> dict[str, T]:
        """See `windlass.plugin.InitContext.all`."""
        able = [entry for entry in self._daemon.of_type(kind.uri) if entry.record.state == State.OK]
        return {entry.record.id: _instance(entry, kind) for entry in able}

    def records(self) -> tuple[Record, ...]:
        """See `windlass.plugin.InitContext.records`."""
        return self._daemon.records

    def gates(self) -> Mapping[str, Gate]:
        """See `windlass.plugin.InitContext.gates`."""
        return self._daemon.gates

    def on_start(self, callback: Callable[[], Awaitable[None]]) -> None:
        """See `windlass.plugin.InitContext.on_start`."""
        self.start_callbacks.append(callback)

    def on_stop(self, callback: Callable[[], Awaitable[None] | None]) -> None:
        """See `windlass.plugin.InitContext.on_stop`."""
        self.stop_callbacks.append(callback)

    def register_readiness(self) -> Callable[[], None]:
        """See `windlass.plugin.InitContext.register_readiness`."""
        self.holds_readiness = True
        return self._daemon.hold_readiness(self.uri)


def _instance(entry: _Started, kind: PluginType[T]) -> T:
    record = entry.record
    if record.state != State.OK:
        raise FailedPrecondition(f"{record.uri} did not start: {record.message}") from record.error
    # the handle has the methods of the instance, and the plugin declared with its type that it provides T
    return cast(T, entry.handle)


class Daemon:
    """All plugins of a daemon, from their declarations to their end."""

    def __init__(self, found: Sequence[Found], settings: Settings, configured: Collection[str] = ()) -> None:
        """Prepare to start what was ``found``; must be made on the loop that the daemon will run on.

        Of the plugins whose URIs are ``configured`` none may fail: see `windlass.config.loading.Config.configured`.
        """
        self.settings = settings
        self._configured = configured
        self.loop = asyncio.get_running_loop()
        self.hooks = Hooks()
        self._found = {entry.uri: entry for entry in found}
        self._entries: list[_Started] = []
        self._by_type: dict[str, list[_Started]] = {}
        self._prepared: dict[str, Context] = {}
        self._waiting: set[str] = set()
        self._ready = asyncio.Event()

    @property
    def records(self) -> tuple[Record, ...]:
        """What became of every plugin so far, in start order."""
        return tuple(entry.record for entry in self._entries)

    @property
    def gates(self) -> dict[str, Gate]:
        """The gate of every plugin that started, by URI."""
        return {entry.record.uri: entry.gate for entry in self._entries if entry.gate}

    def of_type(self, uri: str) -> list[_Started]:
        """Return what has been started of a plugin type, in start order."""
        return self._by_type.get(uri, [])

    def timeout(self, key: str) -> float:
        """Return seconds from the configuration, or the kernel's own default."""
        return self.settings.timeouts.get(key, DEFAULT_TIMEOUTS.get(key, UNKNOWN_TIMEOUT))

    def hold_readiness(self, uri: str) -> Callable[[], None]:
        """Hold readiness back until the returned function is called."""
        self._waiting.add(uri)

        def done() -> None:
            self._waiting.discard(uri)
            if not self._waiting:
                self._ready.set()

        def done_anywhere() -> None:
            self.loop.call_soon_threadsafe(done)

        return done_anywhere

    async def start(self) -> None:
        """Initialise every plugin, then start the servers among them.

        A plugin that fails is recorded and the rest goes on. Raises StartError, with
        everything stopped again, when a required plugin is missing or did not start,
        when plugins require each other, or when a server cannot listen.
        """
        order = start_order(entry.plugin for entry in self._found.values() if entry.plugin)
        try:
            self._record_absent()
            for plugin in order:
                if plugin.prepare is not None:
                    await self._prepare(plugin, plugin.prepare)
            for plugin in order:
                self._add(await self._init(plugin))
            self._check_required()
            for entry in self._entries:
                await self._run_start(entry)
        except BaseException:
            await self.stop()
            raise
        if not self._waiting:
            self._ready.set()

    async def wait_ready(self) -> None:
        """Return when every plugin that holds readiness back has let go of it."""
        await self._ready.wait()

    async def stop(self) -> None:
        """Stop plugins last-started first; one that fails or hangs does not keep the rest running."""
        for entry in reversed(self._entries):
            for callback in reversed(entry.stop or []):
                await self._run_stop(entry.record.uri, callback)
            entry.stop = None
            if entry.gate:
                entry.gate.close()
        while self._prepared:
            await self._release(self._prepared.popitem()[1])

    def _record_absent(self) -> None:
        for entry in self._found.values():
            if entry.plugin is None:
                kind, _, id = entry.uri.rpartition(".")
                state = State.FAILED if entry.error else State.DISABLED
                if entry.error:
                    logger.warning("cannot load plugin %s of %s: %s", entry.uri, entry.distribution, entry.error)
                record = Record(entry.uri, kind, id, state, error=entry.error, distribution=entry.distribution)
                self._entries.append(_Started(record))

    def _add(self, entry: _Started) -> None:
        self._entries.append(entry)
        self._by_type.setdefault(entry.record.type, []).append(entry)

    async def _prepare(self, plugin: Plugin[Any], prepare: Callable[[InitContext], Any]) -> None:
        context = self._prepared[plugin.uri] = Context(self, plugin)
        try:
            async with asyncio.timeout(self.timeout(INIT_TIMEOUT)):
                context.prepared = await only_exceptions(asyncio.to_thread(prepare, context))
        except TimeoutError as error:
            raise StartError(f"cannot start {plugin.uri}: it was not prepared in time") from error
        except Exception as error:  # whatever it is, the operator gets the plugin's name with it
            raise _cannot_start(plugin.uri, error) from error

    async def _release(self, context: Context) -> None:
        """Give back what a plugin has prepared and will not use."""
        for callback in reversed(context.stop_callbacks):
            await self._run_stop(context.uri, callback)

    async def _init(self, plugin: Plugin[Any]) -> _Started:
        context = self._prepared.get(plugin.uri) or Context(self, plugin)
        record = Record(
            uri=plugin.uri,
            type=plugin.type.uri,
            id=plugin.id,
            state=State.OK,
            requires=tuple(kind.uri for kind in plugin.requires),
            meta=context.meta,
            distribution=self._found[plugin.uri].distribution,
        )
        started = time.monotonic()
        try:
            instance = await _in_thread(plugin, context, self.timeout(INIT_TIMEOUT))
        except SkipPlugin as error:
            logger.info("plugin %s: %s", plugin.uri, error)
            record = replace(record, state=State.SKIPPED, error=error)
        except Exception as error:  # a plugin's defect must not keep the others from starting
            if is_full(error):
                # Without it the daemon would run for months as half of itself; started again it may find room.
                raise StartError(
                    f"plugin {plugin.uri} finds no space: {error}; start the daemon again when there is some"
                ) from error
            reason = with_class(error) if _defect(error) else str(error)
            logger.warning("plugin %s did not start: %s", plugin.uri, reason, exc_info=_defect(error))
            # what it published before it failed is not to be relied on
            record = replace(record, state=State.FAILED, error=error, meta=Meta())
        else:
            record = replace(record, instance=instance)
        record = replace(record, seconds=time.monotonic() - started)
        entry = _Started(record, start=context.start_callbacks, stop=context.stop_callbacks)
        self._prepared.pop(plugin.uri, None)  # its entry stops it from here on
        if record.state == State.OK:
            entry.gate = Gate(plugin.uri, own_loop=plugin.type.own_loop)
            entry.handle = Handle(record.instance, entry.gate)
        elif context.prepared is not None:
            await self._release(context)
            entry.stop = None
        if record.state != State.OK:
            self.hooks.withdraw(plugin.uri, "" if record.state == State.SKIPPED else record.message)
        if record.state != State.OK and context.holds_readiness:
            self._add(entry)
            raise StartError(f"plugin {plugin.uri}, for which readiness waits, did not start: {record.message}")
        return entry

    def _check_required(self) -> None:
        records = {record.uri: record for record in self.records}
        lines = []
        for uri in self.settings.required_plugins:
            if uri not in records:
                lines.append(f"required plugin {uri} is not installed")
            elif records[uri].state != State.OK:
                reason = records[uri].message or "see disabled_plugins"
                lines.append(f"required plugin {uri} is {records[uri].state}: {reason}")
        mark = self.settings.mark("required_plugins") if lines else None
        lines = [f"{mark}: {line}" for line in lines]
        for uri in self._configured:
            if uri in records and records[uri].state == State.FAILED and uri not in self.settings.required_plugins:
                reason = f"plugin {uri}, which has a block here, did not start: {records[uri].message}"
                remedy = "mend it, or name it in disabled_plugins"
                lines.append(f"{self.settings.mark('plugins', uri)}: {reason}; {remedy}")
        if lines:
            raise StartError("\n".join(lines))

    async def _run_start(self, entry: _Started) -> None:
        for callback in entry.start or []:
            if entry.record.state != State.OK:
                return
            try:
                await _within(self.timeout(INIT_TIMEOUT), _call(callback))
            except TimeoutError as error:
                raise StartError(f"cannot start {entry.record.uri}: it did not start in time") from error
            except Exception as error:  # whatever it is, the operator gets the plugin's name with it
                raise _cannot_start(entry.record.uri, error) from error

    async def _run_stop(self, uri: str, callback: Callable[[], Awaitable[None] | None]) -> None:
        try:
            await _within(self.timeout(STOP_TIMEOUT), _call_anyhow(callback))
        except Exception as error:  # one plugin that cannot stop must not keep the others from stopping
            logger.warning("cannot stop %s: %s", uri, str(error) or type(error).__name__, exc_info=_defect(error))


def _cannot_start(uri: str, error: Exception) -> StartError:
    if _defect(error):
        logger.warning("cannot start %s", uri, exc_info=error)
    return StartError(f"cannot start {uri}: {with_class(error) if _defect(error) else error}")


async def _call(callback: Callable[[], Awaitable[None]]) -> None:
    await callback()


async def _call_anyhow(callback: Callable[[], Awaitable[None] | None]) -> None:
    asynchronous = inspect.iscoroutinefunction(callback)
    result = callback() if asynchronous else await asyncio.to_thread(callback)
    if inspect.isawaitable(result):
        await result


async def _within(seconds: float, answer: Awaitable[None]) -> None:
    """Await what a plugin's callback does; one that does not end although it is cancelled is left behind.

    Raises TimeoutError, and RuntimeError for a callback that lets the cancellation of something else pass.
    """
    task = asyncio.ensure_future(only_exceptions(answer))
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if late := task.cancel():
            await asyncio.wait({task}, timeout=UNWIND)
    if late:
        raise TimeoutError(f"it did not end within {seconds:g} s")
    if task.cancelled():
        raise RuntimeError("it ended by CancelledError, which something that it awaited has raised")
    task.result()


def _defect(error: Exception) -> bool:
    """Tell whether a stack trace helps: an error of ours says all in its message."""
    return not isinstance(error, (Error, OSError))


def _close_to_others(*directories: Path) -> None:
    """Make directories 0700 that others may read; one with mode 0711, for users that pass through, stays as it is."""
    for directory in directories:
        with contextlib.suppress(FileNotFoundError):
            if directory.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
                directory.chmod(0o700)


# Any: whatever it provides.
def _check_instance(plugin: Plugin[Any], instance: object) -> None:
    """Raise InvalidArgument for an instance without the methods of the plugin type's contract."""
    contract = plugin.type.contract
    if contract is None:
        return
    if instance is None:
        raise InvalidArgument(
            f"its init returned None; it must return an object with the methods of {contract.__name__}"
        )
    wanted = {name: getattr(contract, name) for name in dir(contract) if not name.startswith("_")}
    methods = {name: method for name, method in wanted.items() if inspect.isfunction(method)}
    missing = [name for name in methods if not callable(getattr(instance, name, None))]
    if missing:
        kind = type(instance).__name__
        raise InvalidArgument(
            f"its init returned an object of class {kind}, which lacks {', '.join(missing)} of {contract.__name__}"
        )
    for name, method in methods.items():
        if inspect.iscoroutinefunction(getattr(instance, name)) and not inspect.iscoroutinefunction(method):
            raise InvalidArgument(f"its {name} is async, and that of {contract.__name__} is not")


def _check_meta(meta: Meta) -> None:
    """Raise InvalidArgument for what could not be told to clients, whom it would keep from seeing any plugin."""
    texts = [
        *meta.exports,
        *meta.exports.values(),
        *meta.capabilities,
        *(part for each in meta.platforms for part in each),
    ]
    for text in texts:
        if not isinstance(text, str):
            raise InvalidArgument(f"it publishes {text!r}, which is not text")


# Any: whatever the plugin provides.
async def _in_thread(plugin: Plugin[Any], context: Context, timeout: float) -> Any:
    """Call ``init`` in a thread of its own, which is left behind when it hangs."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(instance: object, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(instance)
        else:
            future.set_exception(error)

    def run() -> None:
        instance: object = None
        problem: Exception | None = None
        try:
            instance = plugin.init(context)
            _check_instance(plugin, instance)
            _check_meta(context.meta)
            _close_to_others(context.root, context.state)
        except BaseException as error:  # noqa: BLE001 - handed to the loop, which records it
            # by some a thread would end without a word
            problem = as_exception(error, "its init")
        # a plugin that hung may return when the daemon, and its loop with it, has ended
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, instance, problem)

    threading.Thread(target=run, name=f"init {plugin.uri}", daemon=True).start()
    try:
        async with asyncio.timeout(timeout):
            return await future
    except TimeoutError:
        if future.done() and not future.cancelled():
            raise
        raise DeadlineExceeded(f"its init did not return within {timeout:g} s") from None
