"""Start, readiness, and stop in reverse order: what turns declarations into a running daemon."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar, cast

from windlass import callbacks
from windlass.callbacks import StartCallback, StopCallback
from windlass.discovery import Found
from windlass.errors import Error, FailedPrecondition, NotFound, StartError, is_full, with_class
from windlass.gate import Gate, Handle
from windlass.graph import start_order
from windlass.hooks import Hooks
from windlass.initialise import initialise
from windlass.ownloop import only_exceptions
from windlass.plugin import HOOK, InitContext, Meta, Plugin, PluginType, Record, SkipPlugin, State

logger = logging.getLogger(__name__)
T = TypeVar("T")
C = TypeVar("C")

INIT_TIMEOUT = "io.windlass.timeout.plugin.init"
STOP_TIMEOUT = "io.windlass.timeout.plugin.stop"
DEFAULT_TIMEOUTS = {INIT_TIMEOUT: 30.0, STOP_TIMEOUT: 10.0}
UNKNOWN_TIMEOUT = 1.0


class Settings(Protocol):
    """What boot needs to know of the configuration."""

    @property
    def root(self) -> Path:
        """Directory that holds each plugin's persistent directory."""

    @property
    def state(self) -> Path:
        """Directory that holds each plugin's directory that is lost at boot."""

    @property
    def timeouts(self) -> Mapping[str, float]:
        """Seconds by key."""

    @property
    def properties(self) -> Mapping[str, str]:
        """Facts about the daemon, see `windlass.contracts.properties`."""

    def plugin_config(self, uri: str, kind: type[C]) -> C:
        """Return a plugin's validated configuration, or raise with file and line of what is wrong."""

    def section(self, name: str, kind: type[C]) -> Mapping[str, C]:
        """Return the entries of a top-level section, by ID."""


class _Context:
    """One plugin of a daemon: the `windlass.plugin.InitContext` that it starts with, and what became of it."""

    def __init__(self, daemon: Daemon, plugin: Plugin[object], distribution: str) -> None:
        self._daemon = daemon
        self.plugin = plugin
        self.uri = plugin.uri
        self.root = daemon.settings.root / plugin.uri
        self.state = daemon.settings.state / plugin.uri
        self.meta = Meta()
        self.loop = daemon.loop
        self.properties = daemon.settings.properties
        self.hooks = daemon.hooks
        self.prepared: object = None
        self.starts: list[StartCallback] = []
        self.stops: list[StopCallback] = []
        self.holds_readiness = False
        requires = tuple(kind.uri for kind in plugin.requires)
        self.record = Record(
            plugin.uri, plugin.type.uri, plugin.id, State.OK, requires, self.meta, distribution=distribution
        )
        self.gate = Gate(plugin.uri, own_loop=plugin.type.own_loop)
        self.handle: object = None

    def config(self, kind: type[C]) -> C:
        return self._daemon.settings.plugin_config(self.uri, kind)

    def section(self, name: str, kind: type[C]) -> Mapping[str, C]:
        return self._daemon.settings.section(name, kind)

    def timeout(self, key: str) -> float:
        return self._daemon.timeout(key)

    def single(self, kind: PluginType[T]) -> T:
        able = [each for each in self._daemon.of_type(kind.uri) if each.record.state != State.SKIPPED]
        if not able:
            raise NotFound(f"no plugin of type {kind.uri} has started")
        if len(able) > 1:
            uris = ", ".join(each.uri for each in able)
            raise FailedPrecondition(f"one plugin of type {kind.uri} is needed and there are several: {uris}")
        return able[0].provided(kind)

    def by_id(self, kind: PluginType[T], id: str) -> T:
        for each in self._daemon.of_type(kind.uri):
            if each.record.id == id:
                return each.provided(kind)
        raise NotFound(f"plugin {kind.uri}.{id} has not started")

    def all(self, kind: PluginType[T]) -> dict[str, T]:
        able = [each for each in self._daemon.of_type(kind.uri) if each.record.state == State.OK]
        return {each.record.id: each.provided(kind) for each in able}

    def provided(self, kind: PluginType[T]) -> T:
        """Return the handle of this plugin. Raises FailedPrecondition when it did not start."""
        if self.record.state != State.OK:
            raise FailedPrecondition(f"{self.uri} did not start: {self.record.message}") from self.record.error
        # the handle has the methods of the instance, and the plugin declared with its type that it provides T
        return cast(T, self.handle)

    def records(self) -> tuple[Record, ...]:
        return self._daemon.records

    def gates(self) -> Mapping[str, Gate]:
        return self._daemon.gates

    def on_start(self, callback: StartCallback) -> None:
        self.starts.append(callback)

    def on_stop(self, callback: StopCallback) -> None:
        self.stops.append(callback)

    def register_readiness(self) -> Callable[[], None]:
        self.holds_readiness = True
        return self._daemon.hold_readiness(self.uri)


class Daemon:
    """All plugins of a daemon, from their declarations to their end."""

    def __init__(
        self,
        found: Sequence[Found],
        settings: Settings,
        initialised: Callable[[InitContext], None] = lambda context: None,
        check: Callable[[Sequence[Record]], None] = lambda records: None,
    ) -> None:
        """Prepare to start what was ``found``; must be made on the loop that the daemon will run on.

        ``initialised`` is called in a thread after each ``init``, and ``check`` when all have returned, before
        anything serves: it raises StartError when a plugin that must run does not.
        """
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.hooks = Hooks()
        self._found = {entry.uri: entry for entry in found}
        self._initialised = initialised
        self._check = check
        self._absent: list[Record] = []
        self._contexts: list[_Context] = []
        self._started: list[_Context] = []
        self._waiting: set[str] = set()
        self._ready = asyncio.Event()

    @property
    def records(self) -> tuple[Record, ...]:
        """What became of every plugin so far, in start order."""
        return (*self._absent, *(each.record for each in self._started))

    @property
    def gates(self) -> dict[str, Gate]:
        """The gate of every plugin that started, by URI."""
        return {each.uri: each.gate for each in self._started if each.record.state == State.OK}

    def of_type(self, uri: str) -> list[_Context]:
        """Return what has been started of a plugin type, in start order."""
        return [each for each in self._started if each.record.type == uri]

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
        everything stopped again, when a plugin that must run does not,
        when plugins require each other, or when a server cannot listen.
        """
        order = start_order(entry.plugin for entry in self._found.values() if entry.plugin)
        self._contexts = [_Context(self, plugin, self._found[plugin.uri].distribution) for plugin in order]
        try:
            self._record_absent()
            for context in self._contexts:
                await self._prepare(context)
            for context in self._contexts:
                await self._init(context)
            self._check(self.records)
            for context in self._contexts:
                await self._run_starts(context)
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
        for context in reversed(self._contexts):
            await self._run_stops(context)
            context.gate.close()
        self.hooks.close()

    def _record_absent(self) -> None:
        for entry in self._found.values():
            if entry.plugin is None:
                kind, _, id = entry.uri.rpartition(".")
                state = State.FAILED if entry.error else State.DISABLED
                record = Record(entry.uri, kind, id, state, error=entry.error, distribution=entry.distribution)
                self._absent.append(record)
                if entry.error:
                    logger.warning("cannot load plugin %s of %s: %s", entry.uri, entry.distribution, entry.error)
                    if entry.uri.startswith(f"{HOOK.uri}."):
                        self.hooks.fail(entry.uri, record.message)

    async def _prepare(self, context: _Context) -> None:
        prepare = context.plugin.prepare
        if prepare is None:
            return
        try:
            async with asyncio.timeout(self.timeout(INIT_TIMEOUT)):
                context.prepared = await only_exceptions(asyncio.to_thread(prepare, context))
        except TimeoutError as error:
            raise StartError(f"cannot start {context.uri}: it was not prepared in time") from error
        except Exception as error:  # whatever it is, the operator gets the plugin's name with it
            raise _cannot_start(context.uri, error) from error

    async def _init(self, context: _Context) -> None:
        begun, plugin = time.monotonic(), context.plugin
        try:
            instance = await initialise(plugin, context, self._initialised, self.timeout(INIT_TIMEOUT))
            if plugin.type == HOOK:
                self.hooks.add(instance, context.gate, plugin.steps)
        except SkipPlugin as error:
            logger.info("plugin %s: %s", plugin.uri, error)
            became = replace(context.record, state=State.SKIPPED, error=error)
        except Exception as error:  # noqa: BLE001 - a plugin's defect must not keep the others from starting
            became = _failed(context.record, error)
        else:
            context.handle = Handle(instance, context.gate)
            became = replace(context.record, instance=instance)
        context.record = replace(became, seconds=time.monotonic() - begun)
        self._started.append(context)
        if context.record.state != State.OK:
            await self._go_on_without(context)

    async def _go_on_without(self, context: _Context) -> None:
        record = context.record
        if context.plugin.type == HOOK and record.state == State.FAILED:
            self.hooks.fail(context.uri, record.message, context.plugin.steps)
        if context.prepared is not None:
            await self._run_stops(context)  # it will not use what it has prepared
        if context.holds_readiness:
            raise StartError(f"plugin {context.uri}, for which readiness waits, did not start: {record.message}")

    async def _run_starts(self, context: _Context) -> None:
        for callback in context.starts if context.record.state == State.OK else ():
            try:
                await callbacks.run(callback, self.timeout(INIT_TIMEOUT))
            except TimeoutError as error:
                raise StartError(f"cannot start {context.uri}: it did not start in time") from error
            except Exception as error:  # whatever it is, the operator gets the plugin's name with it
                raise _cannot_start(context.uri, error) from error

    async def _run_stops(self, context: _Context) -> None:
        while context.stops:
            try:
                await callbacks.run(context.stops.pop(), self.timeout(STOP_TIMEOUT))
            except Exception as error:  # one plugin that cannot stop must not keep the others from stopping
                reason = str(error) or type(error).__name__
                logger.warning("cannot stop %s: %s", context.uri, reason, exc_info=_defect(error))


def _failed(record: Record, error: Exception) -> Record:
    """Return what became of a plugin whose ``init`` failed, with none of the facts that it has published before."""
    if is_full(error):
        # Without it the daemon would run for months as half of itself; started again it may find room.
        reason = f"plugin {record.uri} finds no space: {error}; start the daemon again when there is some"
        raise StartError(reason) from error
    reason = with_class(error) if _defect(error) else str(error)
    logger.warning("plugin %s did not start: %s", record.uri, reason, exc_info=error if _defect(error) else None)
    return replace(record, state=State.FAILED, error=error, meta=Meta())


def _cannot_start(uri: str, error: Exception) -> StartError:
    if _defect(error):
        logger.warning("cannot start %s", uri, exc_info=error)
    return StartError(f"cannot start {uri}: {with_class(error) if _defect(error) else error}")


def _defect(error: Exception) -> bool:
    """Return whether a stack trace helps: an error of ours says all in its message."""
    return not isinstance(error, (Error, OSError))
