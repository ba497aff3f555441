"""NRI in the daemon: its socket, the plugins that the daemon starts, and the way to what speaks with them.

Most daemons have no plugin of NRI. What speaks its messages is imported with the first.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from windlass.contracts.pods import PodRuntime
from windlass.errors import Error, FailedPrecondition
from windlass_nri_plugins.config import Config
from windlass_nri_plugins.listening import Listener
from windlass_nri_plugins.policies import Policies

if TYPE_CHECKING:
    from windlass_nri_plugins.launching import Program
    from windlass_nri_plugins.peers import Peers

logger = logging.getLogger(__name__)
R = TypeVar("R")

MOST = 64
"""Connections at one time."""
PATIENCE = 20.0
"""Seconds for which pods wait for the plugins that the daemon starts."""


class NriServer:
    """Knows all plugins of NRI. But for `has_say` and `run`, used on the daemon's loop."""

    def __init__(self, config: Config, state: Path, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with `start`; ``state`` is a directory for what the next daemon has to know."""
        self._config = config
        self._state = state
        self._loop = loop
        self._policies = Policies(config.policies)
        self._runtime: PodRuntime | None = None
        self._made: Peers | None = None
        self._listener: Listener | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = asyncio.Lock()
        self._started = False

    @property
    def peers(self) -> Peers:
        """All plugins; imports them."""
        if self._made is None:
            from windlass_nri_plugins.peers import Peers

            self._made = Peers(self._config, self._policies, lambda: self._runtime)
        return self._made

    def has_say(self, step: str) -> bool:
        """Tell whether there is a plugin, or a rule, to ask in a step."""
        if step == "serve_pods":
            return True
        if step == "validate_container_adjustment" and self._config.default_validator.enable:
            return True
        there = self._made.names() if self._made is not None else []
        return (self._made is not None and self._made.has_say(step)) or bool(self._policies.absent(step, there))

    def check_absent(self, step: str, labels: dict[str, str]) -> None:
        """Raise FailedPrecondition when a plugin is not there whose policy is to refuse then."""
        for name, policy in self._policies.absent(step, self.peers.names()).items():
            if not policy.exempts(labels):
                raise FailedPrecondition(f'plugin "{name}" is not there, and its policy is to refuse then; start it')

    async def serve_pods(self, runtime: PodRuntime) -> None:
        """Know who runs the pods; until then there are none. Return when the installed plugins take part."""
        self._runtime = runtime
        await self.start()

    async def run(self, work: Coroutine[object, object, R]) -> R:
        """Await ``work`` on the daemon's loop, from any other."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def start(self) -> None:
        """Listen, and start the plugins that are installed, if that was not done; wait until they have been tried."""
        async with self._starting:
            if not self._started:
                self._started = True
                await self._start()

    async def _start(self) -> None:
        directory = Path(self._config.plugin_path)
        if await asyncio.to_thread(lambda: directory.is_dir() and any(directory.iterdir())):
            from windlass_nri_plugins.launching import Launcher

            launcher = Launcher(self._config, self._state, self.peers)
            found = {asyncio.Event(): program for program in await asyncio.to_thread(launcher.find)}
            for tried, program in found.items():
                self._begin(launcher.keep(program, tried))
            await self._wait_for(found)
        if not self._config.disable_connections:
            self._listener = Listener(Path(self._config.socket_path))
            if await asyncio.to_thread(self._listener.open):
                self._begin(self._accept(self._listener))

    async def _wait_for(self, found: Mapping[asyncio.Event, Program]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                for tried in found:
                    await tried.wait()
        except TimeoutError:
            late = ", ".join(str(program.path) for tried, program in found.items() if not tried.is_set())
            logger.warning("plugins do not take part after %g s, pods go on without them: %s", PATIENCE, late)

    async def _accept(self, listener: Listener) -> None:
        async for connection in listener.connections():
            if len(self._tasks) > MOST:
                logger.warning("more than %d plugins connect to %s; one is turned away", MOST, listener.path)
                connection.close()
            else:
                self._begin(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        try:
            await self.peers.serve(connection)
        except Error as error:
            logger.warning("a plugin cannot take part: %s", error)

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Disconnect all plugins, and end those that the daemon has started."""
        if self._listener is not None:
            self._listener.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
