"""What a plugin is: the types that an author declares one with.

A plugin has a type, an ID within the type, the types it requires, and an
``init`` that returns its instance. Nothing here starts anything.
"""

from __future__ import annotations

import asyncio
import builtins
import traceback
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

from windlass.errors import Error, with_class
from windlass.marks import contract as contract
from windlass.marks import quick as quick
from windlass.records import dataclass

if TYPE_CHECKING:
    from windlass.gate import Gate
    from windlass.hooks import Hooks

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
C = TypeVar("C")

# Any: TOML tables as parsed.
Tables: TypeAlias = dict[str, Any]
"""The ``plugins`` table of a configuration, for `Plugin.migrate`."""

SKIP = "skip plugin"
"""How a skip ends its message: `ctr plugins ls` shows "skip" when it finds these words."""


class SkipPlugin(Exception):
    """Raised by ``init`` when the plugin cannot work on this machine; the reason is shown to the operator."""

    def __str__(self) -> str:
        return f"{super().__str__()}: {SKIP}"


@dataclass(frozen=True, slots=True)
class PluginType(Generic[T_co]):
    """A point of extension; ``T_co`` is the interface that its plugins provide."""

    uri: str
    contract: builtins.type[object] | None = field(default=None, compare=False)
    """The same interface, for the check of what ``init`` returns; without it anything will do, None too."""
    own_loop: bool = field(default=False, compare=False)
    """Whether async methods run on an event loop of each plugin's own, so that one that blocks stops no client.

    For contracts whose methods share nothing with the daemon's loop: no futures, locks or streams of it.
    """
    version: tuple[int, int] = field(default=(1, 0), compare=False)
    """Of the contract. The second number grows with each addition, the first when plugins have to change."""
    asked: tuple[int, int] | None = field(default=None, compare=False)
    """The version that a plugin was written for; see `at`."""

    def at(self, major: int, minor: int) -> PluginType[T_co]:
        """Return this type as a plugin names it that was written for a version of its contract.

        The kernel refuses the plugin where the contract has another first number or a smaller second one.
        """
        return replace(self, asked=(major, minor))

    @property
    def misfit(self) -> str:
        """What is wrong when the contract is not what the plugin that names it was written for; empty when it fits."""
        if self.asked is None or (self.asked[0] == self.version[0] and self.asked[1] <= self.version[1]):
            return ""
        asked, have = (".".join(map(str, version)) for version in (self.asked, self.version))
        reason = f"it was written for version {asked} of {self.uri}, and this daemon has {have}"
        return f"{reason}; install a plugin and a kernel that fit"


ALL: PluginType[object] = PluginType("*")
"""In ``requires``: everything else first."""

HOOK: PluginType[object] = PluginType("io.windlass.hook.v1", own_loop=True)
"""Plugins that take part in steps: ``init`` returns an object with methods that `windlass.hooks.hookimpl` marks."""


@dataclass(slots=True)
class Meta:
    """Facts that a plugin publishes about itself while it starts; `ctr plugins ls -d` shows them."""

    platforms: list[tuple[str, str, str]] = field(default_factory=list)
    """(os, architecture, variant)"""
    exports: dict[str, str] = field(default_factory=dict)
    capabilities: list[str] = field(default_factory=list)


class InitContext(Protocol):
    """The argument of ``init``, which runs in a thread that it shares with those of others, and has a deadline."""

    @property
    def uri(self) -> str:
        """The URI of the plugin that is being started."""

    @property
    def root(self) -> Path:
        """Persistent directory of this plugin; not created for it, and closed to others once ``init`` has."""

    @property
    def state(self) -> Path:
        """Directory of this plugin that is lost at boot; as with `root`."""

    @property
    def meta(self) -> Meta:
        """Where to publish platforms, exports and capabilities."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The daemon's event loop, for instances that post to it from their threads."""

    @property
    def properties(self) -> Mapping[str, str]:
        """Facts about the daemon, by the names in `windlass.contracts.properties`."""

    def config(self, kind: type[C]) -> C:
        """Return this plugin's configuration, as validated against its declared class."""

    def section(self, name: str, kind: type[C]) -> Mapping[str, C]:
        """Return the entries of a top-level section of the files, such as ``stream_processors``, by ID."""

    def timeout(self, key: str) -> float:
        """Return seconds from the ``[timeouts]`` table; 1.0 for a key that is not there."""

    def single(self, kind: PluginType[T]) -> T:
        """Return the one instance of ``kind``, skipped ones left out.

        Raises NotFound, FailedPrecondition (several), or the error it failed with.
        """

    def by_id(self, kind: PluginType[T], id: str) -> T:
        """Return the instance of that ID; raises NotFound or the error it failed with."""

    def all(self, kind: PluginType[T]) -> dict[str, T]:
        """Return the instances of ``kind`` by ID, those that were skipped or failed left out."""

    @property
    def hooks(self) -> Hooks:
        """The steps in which plugins of type `HOOK` take part; `Hooks.call` asks them."""

    def records(self) -> tuple[Record, ...]:
        """Return what became of every plugin so far, in start order; a live view of a tuple each call."""

    def gates(self) -> Mapping[str, Gate]:
        """Return the boundary around every plugin that has started so far, by URI: its accounts are there."""

    def on_start(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Await ``callback`` on the loop after every plugin has been initialised, in start order."""

    def on_stop(self, callback: Callable[[], Awaitable[None] | None]) -> None:
        """Call ``callback`` at stop, in reverse start order; it runs also when a later start fails."""

    def on_reload(self, keys: Collection[str], callback: Callable[[], Awaitable[None] | None]) -> None:
        """Call ``callback`` when values of ``keys`` of this plugin's configuration change while the daemon runs.

        `config` returns the new values then. If it raises, the plugin keeps the old ones. Other keys need a restart.
        """

    # Any: what a plugin's own ``prepare`` has returned.
    @property
    def prepared(self) -> Any:
        """What the plugin's ``prepare`` has returned, None without one."""

    def register_readiness(self) -> Callable[[], None]:
        """Hold readiness back until the returned function has been called (from any thread)."""


@dataclass(frozen=True)
class Plugin(Generic[T_co]):
    """The declaration that an entry point of the group ``windlass.plugins`` names.

    ``config`` is a frozen dataclass, its fields the TOML keys; ``requires`` lists
    the types whose plugins must start before. ``migrate`` may rename, move or
    delete blocks of the whole ``plugins`` table on the step from the given
    configuration version to the next. ``prepare`` is called before any plugin's
    ``init``, for what others look for as soon as the daemon runs, such as a socket;
    nothing but early plugins has been started then, and when it raises, the daemon does not start.
    ``steps``, for type `HOOK`, are the classes of the steps that it takes part in.
    ``later`` names modules that its first call imports: the daemon imports them in a
    thread once it is ready, so that its start does not take so long, nor that call.
    An ``early`` plugin requires no other, and its ``init`` comes before any ``prepare``:
    servers may use it while the rest of the daemon starts.
    """

    type: PluginType[T_co]
    id: str
    init: Callable[[InitContext], T_co]
    requires: tuple[PluginType[object], ...] = ()
    config: builtins.type[object] | None = None
    migrate: Callable[[int, Tables], None] | None = None
    prepare: Callable[[InitContext], object] | None = None
    steps: tuple[builtins.type[object], ...] = ()
    later: tuple[str, ...] = ()
    early: bool = False

    @property
    def uri(self) -> str:
        """Type and ID, joined by a dot; unique in a daemon."""
        return f"{self.type.uri}.{self.id}"

    def __post_init__(self) -> None:
        """Refuse declarations that can never be ordered (docs/containerd 1.1)."""
        if not self.type.uri or not self.id:
            raise ValueError(f"plugin {self.type.uri}.{self.id}: type and ID must not be empty")
        if ALL in self.requires and len(self.requires) > 1:
            raise ValueError(f"plugin {self.uri}: ALL cannot be combined with other requirements")
        if self.type in self.requires:
            raise ValueError(f"plugin {self.uri} requires its own type")
        if self.early and (self.requires or self.prepare):
            raise ValueError(f"plugin {self.uri}: an early plugin cannot require others or prepare anything")
        if bool(self.steps) != (self.type == HOOK):
            raise ValueError(f"plugin {self.uri}: a plugin of type {HOOK.uri} has steps, and no other has")

    @property
    def misfit(self) -> str:
        """The first misfit of the types that it names; empty when all fit."""
        return next(filter(None, (kind.misfit for kind in (self.type, *self.requires))), "")


_TELLING = (Error, SkipPlugin, OSError, ImportError, ValueError, RuntimeError)
"""Errors whose text is a sentence; that of a KeyError is a key."""


class State:
    """What can become of a plugin."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one plugin; every plugin that was found has one."""

    uri: str
    type: str
    id: str
    state: str
    requires: tuple[str, ...] = ()
    meta: Meta = field(default_factory=Meta)
    instance: object = None
    error: BaseException | None = None
    distribution: str = ""
    """Name and version of the package that brought it, empty for proxies."""
    seconds: float = 0.0
    """How long ``init`` took."""

    @property
    def message(self) -> str:
        """Why it did not start, empty when it did; an error that is not one of ours comes with its class and place."""
        error = self.error
        if error is None or (isinstance(error, _TELLING) and str(error)):
            return str(error or "")
        if isinstance(error, SyntaxError) and error.filename:
            # its frames are those of the import
            return f"{type(error).__name__}: {error.msg} at {error.filename}:{error.lineno}"
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {frames[-1].filename}:{frames[-1].lineno} ({frames[-1].name})" if frames else ""
        return f"{with_class(error)}{place}"
