"""Plugins that the daemon starts: programs of a directory, each with a socket to the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path

from windlass.errors import Error
from windlass.records import dataclass
from windlass_nri import naming
from windlass_nri_plugins.config import Config
from windlass_nri_plugins.peers import Name, Peers

logger = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
STEADY = 60.0
"""Seconds that a plugin has to run for the next pause to be the first again."""


@dataclass(frozen=True)
class Program:
    """One of the plugins."""

    path: Path
    index: str
    name: str
    document: str
    """Its configuration."""


class Launcher:
    """Starts plugins, and starts them again when they end.

    A file has the pid of each and when it began, so that a daemon that comes after a crash ends those that still run.
    """

    def __init__(self, config: Config, state: Path, peers: Peers) -> None:
        """Let what runs take part in ``peers``; the file is below ``state``."""
        self._directory = Path(config.plugin_path)
        self._documents = Path(config.plugin_config_path)
        self._file = state / "plugins.json"
        self._peers = peers
        self._running: dict[int, int] = {}
        self._writing = threading.Lock()

    def find(self) -> list[Program]:
        """Return the plugins, once those of an earlier daemon have ended; what is wrong with one is logged. Blocks."""
        self._end_old()
        found = []
        for path in sorted(self._directory.iterdir()):
            try:
                if path.is_file() and os.access(path, os.X_OK):
                    index, name = naming.split(path.name)
                    found.append(Program(path, index, name, self._document(path.name, name)))
            except (Error, OSError, ValueError) as error:
                logger.warning("plugin %s is left out: %s", path, error)
        return found

    def _document(self, *names: str) -> str:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                return (self._documents / f"{name}.conf").read_text()
        return ""

    async def keep(self, program: Program, tried: asyncio.Event) -> None:
        """Run a plugin until this is cancelled, and again after a pause when it ends.

        ``tried`` is set when it takes part, or has failed for the first time.
        """
        pause = FIRST_PAUSE
        while True:
            begun = time.monotonic()
            try:
                await self._run(program, tried)
            except (Error, OSError) as error:
                logger.warning("plugin %s: %s", program.path, error)
            finally:
                tried.set()
            pause = FIRST_PAUSE if time.monotonic() - begun > STEADY else pause
            logger.warning("plugin %s has ended; it is started again in %g s", program.path, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _run(self, program: Program, tried: asyncio.Event) -> None:
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.callback(ours.close)
            with theirs:
                process = await _spawn(program, theirs.fileno())
            try:
                await asyncio.to_thread(self._remember, process.pid)
                stack.pop_all()  # it is the connection's from here on
                who = Name(program.index, program.name, program.document)
                await self._peers.serve(ours, who, tried.set)
            finally:
                await asyncio.shield(_end(process))
                self._running.pop(process.pid, None)

    def _remember(self, pid: int) -> None:
        with self._writing:
            self._running[pid] = _began(pid)
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self._file.with_suffix(".new")
            temporary.write_text(json.dumps(list(self._running.items())))
            temporary.rename(self._file)

    def _end_old(self) -> None:
        try:
            known = [(int(pid), int(began)) for pid, began in json.loads(self._file.read_text())]
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError) as error:
            logger.warning("%s is damaged, plugins of an earlier daemon may still run: %s", self._file, error)
            return
        for pid, began in known:
            if began and _began(pid) == began:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)


def _began(pid: int) -> int:
    """Return when a process began, in ticks since boot; 0 for one that is not there. With its pid this is unique."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


async def _spawn(program: Program, descriptor: int) -> asyncio.subprocess.Process:
    nowhere = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(
        program.path,
        stdin=nowhere,
        stdout=nowhere,
        stderr=nowhere,
        pass_fds=(descriptor,),
        start_new_session=True,
        env={
            naming.NAME_VARIABLE: program.name,
            naming.INDEX_VARIABLE: program.index,
            naming.SOCKET_VARIABLE: str(descriptor),
        },
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is still running, with its children, and reap it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
