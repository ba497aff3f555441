"""Start, readiness, and stop in reverse order: what turns declarations into a running daemon."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar, cast

from windlass import callbacks
from windlass.callbacks import Reload, StartCallback, StopCallback
from windlass.discovery import Found
from windlass.errors import Error, FailedPrecondition, NotFound, StartError, is_full, with_class
from windlass.gate import Gate, Handle
from windlass.graph import start_order
from windlass.hooks import Hooks
from windlass.initialise import Initialiser
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
        self.reloads: list[Reload] = []
        self.holds_readiness = False
        requires = tuple(kind.uri for kind in plugin.requires)
        self.record = Record(
            plugin.uri, plugin.type.uri, plugin.id, State.OK, requires, self.meta, distribution=distribution
        )
        self.gate = Gate(plugin.uri, own_loop=plugin.type.own_loop)
        self.handle: object = None

    def prepare(self) -> None:
        assert self.plugin.prepare is not None  # the daemon calls this only for plugins that prepare something
        self.prepared = self.plugin.prepare(self)

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

    def on_reload(self, keys: Collection[str], callback: StopCallback) -> None:
        self.reloads.append((frozenset(keys), callback))

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

        ``initialised`` is called in the same thread after each ``init``, and ``check`` when all have returned, before
        anything serves: it raises StartError when a plugin that must run does not.
        """
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.hooks = Hooks()
        self._found = {entry.uri: entry for entry in found}
        self._initialiser = Initialiser(initialised)
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

    @property
    def reloads(self) -> dict[str, list[Reload]]:
        """What the plugins that started can take over of a new configuration, by URI."""
        return {each.uri: each.reloads for each in self._started if each.record.state == State.OK}

    @property
    def later(self) -> list[str]:
        """Modules that first calls of the plugins that started import."""
        started = [each.plugin for each in self._started if each.record.state == State.OK]
        return [module for plugin in started for module in plugin.later]

    def of_type(self, uri: str) -> list[_Context]:
        """Return what has been started of a plugin type, in start order."""
        return [each for each in self._started if each.record.type == uri]

    def timeout(self, key: str) -> float:
        """Return seconds from the configuration, or the kernel's own default."""
        return self.settings.timeouts.get(key, DEFAULT_TIMEOUTS.get(key, UNKNOWN_TIMEOUT))

    def hold_readiness(self, uri: str) -> Callable[[], None]:
        """Hold readiness back until the returned function is called."""
        self._waiting.add(uri)

        def let_go() -> None:
            self.loop.call_soon_threadsafe(self._let_go, uri)

        return let_go

    def _let_go(self, uri: str) -> None:
        self._waiting.discard(uri)
        if not self._waiting:
            self._ready.set()

    async def start(self) -> None:
        """Initialise every plugin, then start the servers among them.

        A plugin that fails is recorded and the rest goes on. Raises StartError, with
        everything stopped again, when a plugin that must run does not,
        when plugins require each other, or when a server cannot listen.
        """
        order = start_order(entry.plugin for entry in self._found.values() if entry.plugin)
        order.sort(key=lambda plugin: not plugin.early)
        self._contexts = [_Context(self, plugin, self._found[plugin.uri].distribution) for plugin in order]
        try:
            self._record_absent()
            await self._init_all(early=True)
            for context in self._contexts:
                if context.plugin.prepare is not None:
                    await self._run_start(context, context.prepare)
            await self._init_all(early=False)
            self._initialiser.close()
            self._check(self.records)
            for context in self._contexts:
                for callback in context.starts if context.record.state == State.OK else ():
                    await self._run_start(context, callback)
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
        self._initialiser.close()
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
                    self._miss(record, None)

    async def _init_all(self, early: bool) -> None:
        for context in self._contexts:
            if context.plugin.early == early:
                await self._init(context)

    async def _init(self, context: _Context) -> None:
        begun, plugin, record = time.monotonic(), context.plugin, context.record
        try:
            instance = await self._initialiser.initialise(plugin, context, self.timeout(INIT_TIMEOUT))
            if plugin.type == HOOK:
                self.hooks.add(instance, context.gate, plugin.steps)
        except SkipPlugin as error:
            logger.info("plugin %s: %s", plugin.uri, error)
            record = replace(record, state=State.SKIPPED, error=error)
        except Exception as error:  # a plugin's defect must not keep the others from starting
            if is_full(error):
                # Without it the daemon would run for months as half of itself; started again it may find room.
                reason = f"plugin {plugin.uri} finds no space: {error}; start the daemon again when there is some"
                raise StartError(reason) from error
            logger.warning("plugin %s did not start: %s", plugin.uri, _reason(error), exc_info=_trace(error))
            # none of the facts that it has published before
            record = replace(record, state=State.FAILED, error=error, meta=Meta())
            self._miss(record, plugin.steps)
        else:
            context.handle = Handle(instance, context.gate)
            record = replace(record, instance=instance)
        context.record = replace(record, seconds=time.monotonic() - begun)
        self._started.append(context)
        if record.state != State.OK:
            await self._go_on_without(context)

    def _miss(self, record: Record, steps: Collection[type[object]] | None) -> None:
        """Have the closed steps fail in which a plugin that did not start might refuse; None is all of them."""
        if record.type == HOOK.uri:
            self.hooks.fail(record.uri, record.message, steps)

    async def _go_on_without(self, context: _Context) -> None:
        if context.prepared is not None:
            await self._run_stops(context)  # it will not use what it has prepared
        if context.holds_readiness:
            reason = context.record.message
            raise StartError(f"plugin {context.uri}, for which readiness waits, did not start: {reason}")

    async def _run_start(self, context: _Context, callback: StopCallback) -> None:
        try:
            await callbacks.run(callback, self.timeout(INIT_TIMEOUT))
        except Exception as error:  # whatever it is, the operator gets the plugin's name with it
            if _trace(error):
                logger.warning("cannot start %s", context.uri, exc_info=error)
            raise StartError(f"cannot start {context.uri}: {_reason(error)}") from error

    async def _run_stops(self, context: _Context) -> None:
        while context.stops:
            try:
                await callbacks.run(context.stops.pop(), self.timeout(STOP_TIMEOUT))
            except Exception as error:  # one plugin that cannot stop must not keep the others from stopping
                logger.warning("cannot stop %s: %s", context.uri, _reason(error), exc_info=_trace(error))


def _reason(error: Exception) -> str:
    return with_class(error) if _trace(error) else str(error)


def _trace(error: Exception) -> Exception | None:
    """Return what the log gets a stack trace of; an error of ours, or of the system, says all in its message."""
    return None if isinstance(error, (Error, OSError)) else error
