"""SIGHUP: the configuration is read again. What can change while the daemon runs changes; the rest is named.

Nothing ends the daemon here. Until a restart, a value that could not be taken over stays as it was, for its plugin and
for the next reload, which names it again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Literal

from windlass import callbacks, discovery
from windlass.boot import INIT_TIMEOUT, STOP_TIMEOUT, Daemon
from windlass.callbacks import Reload
from windlass.config import changes
from windlass.config.loading import Config
from windlass.discovery import Found
from windlass.errors import Error, StartError, with_class
from windlass.process import logs
from windlass.process import setup as process
from windlass.process.owners import owners_of

logger = logging.getLogger(__name__)

LIVE = {"debug.level", "debug.format", "oom_score", f"timeouts.{STOP_TIMEOUT}"}
"""What the daemon itself takes over outside of plugins' blocks."""


class Reloader:
    """Takes over what it can of a configuration that has changed; one reload at a time."""

    def __init__(self, daemon: Daemon, settings: Config, read: Callable[[], Config], found: Sequence[Found]) -> None:
        """Begin with ``settings`` and what was ``found``; ``read`` returns what the files say now."""
        self._daemon = daemon
        self._settings = settings
        self._read = read
        self._found = found
        self._wanted = asyncio.Event()

    def request(self) -> None:
        """Have the configuration read again soon; also before the daemon is ready, and during another reload."""
        self._wanted.set()

    async def follow(self, stop: asyncio.Task[Literal[True]]) -> None:
        """Reload at each request until ``stop`` is done."""
        while not stop.done():
            wanted = asyncio.create_task(self._wanted.wait())
            await asyncio.wait({wanted, stop}, return_when=asyncio.FIRST_COMPLETED)
            wanted.cancel()
            if not stop.done():
                self._wanted.clear()
                try:
                    await self.reload()
                except Exception as error:  # a defect must not end a daemon that runs
                    logger.error("reload: %s", with_class(error), exc_info=error)

    async def reload(self) -> None:
        """Read the configuration and take over what can be; the log says what became of each change."""
        process.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            await self._reload()
        finally:
            process.notify("READY=1")  # also after a defect, or systemd would show the unit as reloading

    async def _reload(self) -> None:
        try:
            new = await asyncio.to_thread(self._read)
            installed = await asyncio.to_thread(discovery.installed)
        except (StartError, OSError) as error:
            for line in str(error).splitlines():
                logger.error("reload: %s; the configuration stays as it was", line)
        else:
            await self._take_over(new, installed.keys())

    async def _take_over(self, new: Config, installed: Set[str]) -> None:
        outside = set(changes.outside_of_plugins(self._settings, new))
        done, later = sorted(outside & LIVE), sorted(outside - LIVE)
        self._take_over_outside(new)
        for uri, keys in changes.of_plugins(self._settings, new).items():
            taken = await self._take_over_plugin(uri, keys, new)
            done += _named(uri, taken)
            later += _named(uri, keys - taken)
        later += [f"plugin {uri}" for uri in sorted(installed - {each.uri for each in self._found})]
        if later:
            logger.warning("reload: these changes need a restart of the daemon: %s", ", ".join(later))
        logger.info("reloaded; changed: %s", ", ".join(done) or "nothing")

    def _take_over_outside(self, new: Config) -> None:
        old = self._settings.top
        debug = changes.with_values(old.debug, new.top.debug, ("level", "format"))
        if debug != old.debug:
            logs.set_up(debug.level, debug.format, owners_of(self._found))
        if new.top.oom_score != old.oom_score:
            process.set_oom_score(new.top.oom_score)
        timeouts = {**self._settings.timeouts}
        timeouts.pop(STOP_TIMEOUT, None)
        timeouts |= {key: value for key, value in new.timeouts.items() if key == STOP_TIMEOUT}
        top = dataclasses.replace(old, debug=debug, oom_score=new.top.oom_score)
        self._use(dataclasses.replace(self._settings, top=top, timeouts=timeouts))

    async def _take_over_plugin(self, uri: str, keys: set[str], new: Config) -> set[str]:
        """Give a plugin the new values of the keys that it can take over, and return these keys."""
        before = self._settings
        reloads = [each for each in self._daemon.reloads.get(uri, ()) if each[0] & keys]
        taken = keys & {key for live, _ in reloads for key in live}
        if not taken:
            return taken
        try:
            block = changes.with_values(before.plugins[uri], new.plugins[uri], taken)
            self._use(dataclasses.replace(before, plugins={**before.plugins, uri: block}))
            await self._call(reloads)
        except Exception as error:  # a plugin's defect must not keep the others from their new values
            self._use(before)
            trace = None if isinstance(error, (Error, StartError, OSError, ValueError)) else error
            logger.error("reload: %s keeps its values: %s", uri, str(error) or with_class(error), exc_info=trace)
            return set()
        return taken

    async def _call(self, reloads: Iterable[Reload]) -> None:
        for _, callback in reloads:
            await callbacks.run(callback, self._daemon.timeout(INIT_TIMEOUT))

    def _use(self, settings: Config) -> None:
        self._settings = self._daemon.settings = settings


def _named(uri: str, keys: Iterable[str]) -> list[str]:
    return [f"{key} of {uri}" for key in sorted(keys)]
