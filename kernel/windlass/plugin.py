"""What a plugin is: the types that an author declares one with.

A plugin has a type, an ID within the type, the types it requires, and an
``init`` that returns its instance. Nothing here starts anything.
"""

from __future__ import annotations

import asyncio
import builtins
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from windlass.errors import Error, with_class

if TYPE_CHECKING:
    from windlass.config.settings import StreamProcessor
    from windlass.gate import Gate
    from windlass.hooks import Hooks

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
C = TypeVar("C")

SKIP = "skip plugin"
"""How a skip ends its message: `ctr plugins ls` shows "skip" when it finds these words."""


class SkipPlugin(Exception):
    """Raised by ``init`` when the plugin cannot work on this machine; the reason is shown to the operator."""

    def __str__(self) -> str:
        return f"{super().__str__()}: {SKIP}"


CONTRACT_MARK = "__windlass_contract__"


def contract(protocol: type[T]) -> type[T]:
    """Mark a Protocol as a contract: calls of its methods pass the gate.

    A method that returns an instance of a contract hands out a gated facet:
    counted under the same plugin, or under the one whose ``gate`` the facet
    names as its own because that plugin does the work.
    """
    setattr(protocol, CONTRACT_MARK, True)
    return protocol


QUICK_MARK = "__windlass_quick__"


def quick(method: C) -> C:
    """Mark an implementation's method as one that the event loop may call itself, without a thread.

    That is its author's word that it answers from memory, or from files that this
    host caches, within some 100 µs and never waits for a lock, a peer or a
    `fsync`: whatever it waits for, every client of the daemon waits for.
    """
    setattr(method, QUICK_MARK, True)
    return method


def is_quick(method: object) -> bool:
    """Tell whether a method is marked as `quick`."""
    return getattr(method, QUICK_MARK, False) is True


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


# Any: an event payload's, a shim's and a service's instances have nothing in common but that they are there.
ALL: PluginType[Any] = PluginType("*")
"""In ``requires``: everything else first."""


@dataclass(slots=True)
class Meta:
    """Facts that a plugin publishes about itself while it starts; `ctr plugins ls -d` shows them."""

    platforms: list[tuple[str, str, str]] = field(default_factory=list)
    """(os, architecture, variant)"""
    exports: dict[str, str] = field(default_factory=dict)
    capabilities: list[str] = field(default_factory=list)


class InitContext(Protocol):
    """What ``init`` is given. It runs in a thread of its own and has a deadline."""

    @property
    def uri(self) -> str:
        """The URI of the plugin that is being started."""
        ...

    @property
    def root(self) -> Path:
        """Persistent directory of this plugin; not created for it, and closed to others once ``init`` has."""
        ...

    @property
    def state(self) -> Path:
        """Directory of this plugin that is lost at boot; as with `root`."""
        ...

    @property
    def meta(self) -> Meta:
        """Where to publish platforms, exports and capabilities."""
        ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The daemon's event loop, for instances that post to it from their threads."""
        ...

    @property
    def properties(self) -> Mapping[str, str]:
        """Facts about the daemon, by the names in `windlass.contracts.properties`."""
        ...

    @property
    def stream_processors(self) -> Mapping[str, StreamProcessor]:
        """Programs that convert layers, by ID; of those that accept one media type the last one counts."""
        ...

    def config(self, kind: type[C]) -> C:
        """Return this plugin's configuration, as validated against its declared class."""
        ...

    def timeout(self, key: str) -> float:
        """Return seconds from the ``[timeouts]`` table; 1.0 for a key that is not there."""
        ...

    def single(self, kind: PluginType[T]) -> T:
        """Return the one instance of ``kind``, skipped ones left out.

        Raises NotFound, FailedPrecondition (several), or the error it failed with.
        """
        ...

    def by_id(self, kind: PluginType[T], id: str) -> T:
        """Return the instance of that ID; raises NotFound or the error it failed with."""
        ...

    def all(self, kind: PluginType[T]) -> dict[str, T]:
        """Return the instances of ``kind`` by ID, those that were skipped or failed left out."""
        ...

    @property
    def hooks(self) -> Hooks:
        """The steps in which plugins may have a say; `Hooks.add` takes part in them."""
        ...

    def records(self) -> tuple[Record, ...]:
        """Return what became of every plugin so far, in start order; a live view of a tuple each call."""
        ...

    def gates(self) -> Mapping[str, Gate]:
        """Return the boundary around every plugin that has started so far, by URI: its accounts are there."""
        ...

    def on_start(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Have ``callback`` awaited on the loop when every plugin has been initialised, in start order."""
        ...

    def on_stop(self, callback: Callable[[], Awaitable[None] | None]) -> None:
        """Have ``callback`` called at stop, in reverse start order; it runs also when a later start fails."""
        ...

    # Any: what a plugin's own ``prepare`` has returned.
    @property
    def prepared(self) -> Any:
        """What the plugin's ``prepare`` has returned, None without one."""
        ...

    def register_readiness(self) -> Callable[[], None]:
        """Hold readiness back until the returned function has been called (from any thread)."""
        ...


@dataclass(frozen=True)
class Plugin(Generic[T_co]):
    """The declaration that an entry point of the group ``windlass.plugins`` names.

    ``config`` is a frozen dataclass, its fields the TOML keys; ``requires`` lists
    the types whose plugins must start before. ``migrate`` may rename, move or
    delete blocks of the whole ``plugins`` table on the step from the given
    configuration version to the next. ``prepare`` is called before any plugin's
    ``init``, for what others look for as soon as the daemon runs, such as a socket;
    nothing has been started then, and when it raises, the daemon does not start.
    """

    type: PluginType[T_co]
    id: str
    init: Callable[[InitContext], T_co]
    # Any: a required type's interface does not matter to the declaration.
    requires: tuple[PluginType[Any], ...] = ()
    config: builtins.type[object] | None = None
    # Any: a TOML table as parsed.
    migrate: Callable[[int, dict[str, Any]], None] | None = None
    # Any: ``init`` finds it in its context, and nobody else does.
    prepare: Callable[[InitContext], Any] | None = None

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
    # Any: instances have nothing in common but that they are there.
    instance: Any = None
    error: BaseException | None = None
    distribution: str = ""
    """Name and version of the package that brought it, empty for proxies."""
    seconds: float = 0.0
    """How long ``init`` took."""

    @property
    def message(self) -> str:
        """Why it did not start, empty when it did; what is no message to people comes with its class and place."""
        error = self.error
        if error is None or (isinstance(error, _TELLING) and str(error)):
            return str(error or "")
        if isinstance(error, SyntaxError) and error.filename:
            # its frames are those of the import
            return f"{type(error).__name__}: {error.msg} at {error.filename}:{error.lineno}"
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {frames[-1].filename}:{frames[-1].lineno} ({frames[-1].name})" if frames else ""
        return f"{with_class(error)}{place}"
