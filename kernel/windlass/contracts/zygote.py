"""Contract: where processes come from when the daemon, which has threads, must not fork.

A zygote is a small single-threaded process that has the needed modules
imported already; a child is a `fork()` of it and costs about a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from windlass.plugin import PluginType, contract
from windlass.records import dataclass


@dataclass(frozen=True, slots=True)
class Child:
    """A process that was spawned; the caller owns ``pidfd`` and closes it."""

    pid: int
    pidfd: int


@contract
class Zygote(Protocol):
    """Forks helpers: shims, unpack workers, makers of network namespaces. Thread-safe."""

    def preload(self, modules: Sequence[str]) -> None:
        """Import ``modules`` before any further child is forked, also after a zygote was replaced."""
        ...

    def spawn(self, entry: str, arguments: Sequence[str], descriptors: Sequence[int], timeout: float = 10.0) -> Child:
        """Fork a process that runs ``entry`` (``"module:function"``) and exits with what it returns.

        The function is called as ``function(arguments, descriptors)``; the
        descriptors arrive duplicated, under other numbers, close-on-exec; all
        others are closed, standard input and output are /dev/null, standard
        error is the daemon's, and the limit of open descriptors is the hard one: what
        the child executes gets the daemon's in `windlass.process.nofile.Found`. The
        child is a session leader, is reparented away
        from the zygote's death, and outlives daemon and zygote; a worker that
        must not, watches one of its descriptors for end of file.

        Raises Unavailable when no zygote answers within ``timeout`` seconds.
        """
        ...


ZYGOTE: PluginType[Zygote] = PluginType("io.windlass.zygote.v1", Zygote)
