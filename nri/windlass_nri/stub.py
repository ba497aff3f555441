"""The plugin's side: connects hook plugins that take part in the steps of pods to a runtime, as one plugin of NRI.

In the daemon the kernel calls such plugins; here the runtime does, by ttrpc, with the same messages, and the
same `windlass.hooks.Hooks` passes them on: deadlines, policies and threads are as in the daemon.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket

from windlass.contracts.pods import PodHooks
from windlass.errors import InvalidArgument, Unavailable
from windlass.gate import Gate
from windlass.hooks import Hooks
from windlass_nri import naming
from windlass_nri.calls import EVENTS, PluginService
from windlass_nri.mux import PLUGIN_SERVICE, RUNTIME_SERVICE, Mux, attach, connect
from windlass_nri.runtime import Runtime

REGISTRATION = 5.0
"""Seconds for the runtime to take the registration and to configure the plugin; NRI's own default."""
CLOSED = "was closed by the plugin"

logger = logging.getLogger(__name__)


def hooks_of(participant: object, name: str) -> Hooks:
    """Return hooks with one participant, an object with methods that `windlass.hooks.hookimpl` marks.

    Raises InvalidArgument when one of them cannot take part.
    """
    hooks = Hooks()
    hooks.add(participant, Gate(f"io.windlass.hook.v1.{name}", own_loop=True), (PodHooks,))
    return hooks


class Stub:
    """One plugin of a runtime; for use on the loop that its hooks were made on."""

    def __init__(self, hooks: Hooks, name: str, index: str, registration: float = REGISTRATION) -> None:
        """Take part in the steps in which ``hooks`` have participants.

        ``registration`` is the number of seconds that the runtime has for it. Raises InvalidArgument.
        """
        naming.check_name(name)
        naming.check_index(index)
        if not any(hooks.wanted(getattr(PodHooks, step)) for step in EVENTS):
            raise InvalidArgument(f"plugin {index}-{name} takes part in no step of pods")
        self._hooks = hooks
        self._name, self._index = name, index
        self._registration = registration
        self._mux: Mux | None = None

    def __str__(self) -> str:
        return f"{self._index}-{self._name}"

    async def run(self, path: str = "") -> None:
        """`start`, and wait until it has `ended`."""
        await self.start(path)
        await self.ended()

    async def ended(self) -> None:
        """Wait for the connection's end. Raises Unavailable when that came by other means than `close`."""
        assert self._mux is not None  # it has started
        await asyncio.wait({self._mux.gone})
        if self._mux.reason != CLOSED:
            raise Unavailable(f"{self._mux.name} {self._mux.reason}")

    async def start(self, path: str = "") -> None:
        """Connect, register and be configured; the runtime's socket is ``path``, NRI's default without.

        A plugin that the runtime has started uses the socket that it was handed, if there is no ``path``.
        Raises Unavailable, and the error with which the runtime refuses.
        """
        self._mux = mux = await _connect(path)
        runtime = Runtime(mux.client(RUNTIME_SERVICE))
        service = PluginService(self._hooks, runtime)
        mux.serve(PLUGIN_SERVICE, [service])
        mux.gone.add_done_callback(lambda _: runtime.ended(f"{mux.name} {mux.reason}"))
        try:
            async with asyncio.timeout(self._registration):
                await runtime.register(self._name, self._index, self._registration)
                await asyncio.wait({service.configured, mux.gone}, return_when=asyncio.FIRST_COMPLETED)
            if not service.configured.done():
                raise Unavailable(f"{mux.name} {mux.reason} and did not configure plugin {self}")
        except TimeoutError:
            limit = f"{self._registration:g} s"
            raise Unavailable(f"{mux.name} did not configure plugin {self} within {limit}") from None
        finally:
            if not service.configured.done():
                mux.close()
        logger.info("plugin %s is registered with %s", self, mux.name)

    def close(self) -> None:
        """End the connection."""
        if self._mux is not None:
            self._mux.close(CLOSED)


async def _connect(path: str) -> Mux:
    descriptor = os.environ.get(naming.SOCKET_VARIABLE, "")
    if path or not descriptor:
        path = path or naming.DEFAULT_SOCKET
        mux = await connect(path)
        mux.name = f"the runtime at {path}"
        return mux
    try:
        peer = socket.socket(fileno=int(descriptor))
        os.set_inheritable(peer.fileno(), False)
    except (ValueError, OSError) as error:
        raise InvalidArgument(f"{naming.SOCKET_VARIABLE}={descriptor} is not a socket's descriptor: {error}") from error
    return await attach(peer, "the runtime that has started this plugin")
