"""Serves a hook plugin to a containerd or CRI-O, as a plugin of NRI.

The kernel that runs the daemon runs this too: with the plugin, what it requires, and a server that takes
the runtime's calls for the steps. So the plugin has its configuration, its gate and its policies as in the daemon.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.machinery
import importlib.util
import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

from windlass import discovery
from windlass.config import loading as config
from windlass.config.loading import WINDLASS, Flags
from windlass.contracts.services import SERVER
from windlass.discovery import Found
from windlass.errors import Error, FailedPrecondition, InvalidArgument, NotFound, StartError, Unavailable, with_class
from windlass.plugin import HOOK, InitContext, Plugin, State
from windlass.process import daemon, logs
from windlass.process import setup as process
from windlass.process.owners import owners_of
from windlass_client.closure import closure
from windlass_nri import naming
from windlass_nri.stub import Stub

AGAIN = 1.0
"""Seconds between attempts to reach a runtime that has gone."""

logger = logging.getLogger(__name__)


def is_hook(target: str) -> bool:
    """Tell whether what the user names is a hook plugin; plugins of other types are named by their URIs only."""
    return target.startswith(f"{HOOK.uri}.") or not target.startswith("io.")


def serve(target: str, name: str, index: str, socket: str, path: Path | None = None, root: str = "") -> int:
    """Serve the plugin that ``target`` names until a signal comes, and return the exit code.

    Name and index are from the environment where the runtime has started this process, and from the name of the
    plugin's file, such as ``10-limits.py``. Raises StartError, InvalidArgument and NotFound for what cannot be served.
    """
    started = time.monotonic()
    wanted = _declaration(target)
    name, index = _identity(target, wanted.id, name, index)
    served = _server(wanted.uri, name, index, socket)
    found = [Found(plugin.uri, "", plugin) for plugin in (*_needed(wanted), served)]
    settings = config.read(path, WINDLASS, _flags(wanted.uri, root)).settle(found)
    logs.set_up(settings.top.debug.level, settings.top.debug.format, owners_of(found))
    lock = process.prepare(settings)
    try:
        return daemon.run_loop(found, settings, started)
    finally:
        os.close(lock)


def _flags(uri: str, root: str) -> Flags:
    # Not the daemon's own directories: it may be running, and its files are its.
    state = f"{root}/state" if root else f"{WINDLASS.state}/serve/{uri}"
    return Flags(root or f"{WINDLASS.root}/serve/{uri}", state, f"{state}/none.sock")


def _needed(wanted: Plugin[object]) -> list[Plugin[object]]:
    """Return a plugin and all that it requires; the import of all installed ones is spared where it requires none."""
    if not wanted.requires:
        return [wanted]
    others = [entry.plugin for entry in discovery.discover() if entry.plugin]
    return closure([wanted], [plugin for plugin in others if plugin.type not in (HOOK, SERVER)])


def _declaration(target: str) -> Plugin[object]:
    """Return the declaration that ``target`` names: of an installed plugin, or one of a file or module."""
    if target.startswith(f"{HOOK.uri}."):
        for entry in discovery.discover():
            if entry.uri == target and entry.plugin is not None:
                return entry.plugin
            if entry.uri == target:
                raise StartError(f"plugin {target} cannot be loaded: {entry.error}")
        raise NotFound(f"plugin {target} is not installed; name the file or module that declares it")
    place, _, attribute = target.partition(":")
    plugin: object = getattr(_module(place), attribute or "PLUGIN", None)
    if not isinstance(plugin, Plugin) or plugin.type != HOOK:
        raise InvalidArgument(f"{place} does not declare {attribute or 'PLUGIN'} as a Plugin of type {HOOK.uri}")
    if plugin.misfit:
        raise FailedPrecondition(f"plugin {plugin.uri}: {plugin.misfit}")
    return plugin


def _module(place: str) -> ModuleType:
    """Import a file, whatever its name ends with, or a module."""
    file = Path(place)
    try:
        if not file.is_file():
            return importlib.import_module(place)
        loader = importlib.machinery.SourceFileLoader("served_plugin", str(file.absolute()))
        spec = importlib.util.spec_from_loader(loader.name, loader)
        assert spec is not None  # there is a loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[loader.name] = module  # which a dataclass looks for
        loader.exec_module(module)
    except ModuleNotFoundError as error:
        if error.name and place.startswith(error.name):
            raise NotFound(f"{place} is neither a file nor a module nor the URI of a hook plugin") from None
        raise StartError(f"{place} cannot be imported: {error}") from error
    except (ImportError, SyntaxError, AttributeError, TypeError, ValueError, NameError, OSError, Error) as error:
        raise StartError(f"{place} cannot be imported: {with_class(error)}") from error
    return module


def _identity(target: str, id: str, name: str, index: str) -> tuple[str, str]:
    """Return name and index. Raises InvalidArgument where there is no index."""
    file = Path(target.partition(":")[0])
    from_file = ("", "")
    if file.is_file() and file.name[:2].isdigit():
        from_file = naming.split(file.name.removesuffix(".py"))
    name = name or os.environ.get(naming.NAME_VARIABLE, "") or from_file[1] or id
    index = index or os.environ.get(naming.INDEX_VARIABLE, "") or from_file[0]
    if not index:
        raise InvalidArgument(f"plugin {name} has no index; give --index, such as 50, or name its file 50-{name}.py")
    naming.check_name(name)
    naming.check_index(index)
    return name, index


def _server(uri: str, name: str, index: str, socket: str) -> Plugin[object]:
    """Return what connects the hooks to the runtime; it is the server of this kernel."""

    def init(context: InitContext) -> object:
        connection = _Connection(context, uri, name, index, socket)
        context.on_start(connection.start)
        context.on_stop(connection.stop)
        return connection

    return Plugin(SERVER, id="nri", init=init, requires=(HOOK,))


class _Connection:
    """Keeps a plugin connected to its runtime, also when that starts anew."""

    def __init__(self, context: InitContext, uri: str, name: str, index: str, socket: str) -> None:
        self._context = context
        self._uri = uri
        self._name, self._index, self._socket = name, index, socket
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Register for the first time. Raises Error."""
        for record in self._context.records():
            if record.uri == self._uri and record.state != State.OK:
                raise FailedPrecondition(f"plugin {self._uri} is {record.state}: {record.message}")
        stub = Stub(self._context.hooks, self._name, self._index)
        await stub.start(self._socket)
        self._keeper = asyncio.create_task(self._keep(stub))

    async def stop(self) -> None:
        """Disconnect."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})

    async def _keep(self, stub: Stub) -> None:
        try:
            while True:
                try:
                    await stub.ended()
                except Unavailable as error:
                    logger.warning("%s", error)
                if os.environ.get(naming.SOCKET_VARIABLE) and not self._socket:
                    signal.raise_signal(signal.SIGTERM)  # the runtime that started this process has gone
                    return
                await self._again(stub)
        finally:
            stub.close()

    async def _again(self, stub: Stub) -> None:
        """Come back once the runtime does."""
        while True:
            await asyncio.sleep(AGAIN)
            try:
                return await stub.start(self._socket)
            except Error as error:
                logger.debug("not connected: %s", error)
