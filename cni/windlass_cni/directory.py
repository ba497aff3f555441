"""The networks of a directory, read again when its files change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from windlass.errors import Error, FailedPrecondition, InvalidArgument
from windlass_cni.config import SUFFIXES, Network, load_directory
from windlass_linux.inotify import IN_DELETE_SELF, IN_IGNORED, IN_MOVE_SELF, IN_Q_OVERFLOW, Watch

logger = logging.getLogger(__name__)

SETTLE = 0.05
"""Seconds between a change and reading it: installers write several files."""
RETRY = 5.0
"""Seconds until a directory that was removed is looked for again."""


class NetworkDirectory:
    """What a directory of network configurations holds now; used on one event loop."""

    def __init__(self, directory: Path, most: int = 1) -> None:
        """Serve the first ``most`` networks of ``directory``, 0 is all; it is read by `load` and `watch`."""
        self._directory = directory
        self._most = most
        self._networks: tuple[Network, ...] = ()
        self._problem: Error = FailedPrecondition("networks have not been read yet")
        self._changed = asyncio.Event()

    @property
    def networks(self) -> Sequence[Network]:
        """The networks. Raises FailedPrecondition that says why there is none."""
        if not self._networks:
            raise self._problem
        return self._networks

    async def load(self) -> None:
        """Read the directory; what is wrong is raised by `networks`, not here."""
        try:
            self._networks = tuple(await asyncio.to_thread(load_directory, self._directory, self._most))
            remedy = f"no network configuration in {self._directory}; put one there"
            self._problem = FailedPrecondition(remedy)
        except InvalidArgument as error:
            self._networks, self._problem = (), FailedPrecondition(str(error))
        except OSError as error:
            reason = f"network configurations in {self._directory} cannot be read: {error.strerror}"
            self._networks, self._problem = (), FailedPrecondition(reason)

    async def watch(self) -> None:
        """Read the directory now and after each change, until this is cancelled."""
        while True:
            try:
                self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
                watch = Watch(self._directory)
            except OSError as error:
                logger.warning("%s cannot be watched: %s; trying again", self._directory, error)
                await self.load()
                await asyncio.sleep(RETRY)
                continue
            try:
                await self._follow(watch)
            finally:
                watch.close()

    async def _follow(self, watch: Watch) -> None:
        """Load, and again after each change, until the directory is gone."""
        loop = asyncio.get_running_loop()
        self._changed.clear()
        loop.add_reader(watch, self._changed.set)
        try:
            await self.load()
            while True:
                await self._changed.wait()
                self._changed.clear()
                await asyncio.sleep(SETTLE)
                changes = list(watch.read())
                if any(mask & IN_Q_OVERFLOW or name.endswith(SUFFIXES) for mask, name in changes):
                    await self.load()
                if any(mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED) for mask, _ in changes):
                    logger.warning("%s has been removed; networks are gone until it is there again", self._directory)
                    await self.load()
                    return
        finally:
            loop.remove_reader(watch)
