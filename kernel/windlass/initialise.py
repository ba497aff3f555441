"""Calling plugins' ``init``: in a thread, within a deadline, and with a look at what it returned."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from types import FunctionType

from windlass.errors import DeadlineExceeded, InvalidArgument, as_exception
from windlass.plugin import InitContext, Meta, Plugin
from windlass.pool import Pool

After = Callable[[InitContext], None]


class Initialiser:
    """One thread that calls every ``init`` in turn; if it hangs, it is left behind, and a new one goes on.

    A thread each would cost as much as many an ``init`` itself.
    """

    def __init__(self, after: After) -> None:
        """Call ``after`` in the thread when an ``init`` has returned."""
        self._after = after
        self._pool = Pool("init", 1)

    async def initialise(self, plugin: Plugin[object], context: InitContext, seconds: float) -> object:
        """Return what ``init`` returns. Raises what is wrong."""
        future = self._pool.submit(lambda: _init(plugin, context, self._after), None).future
        done, _ = await asyncio.wait({future}, timeout=seconds)
        if not done:
            future.cancel()
            self.close()
            self._pool = Pool("init", 1)
            raise DeadlineExceeded(f"its init did not return within {seconds:g} s")
        return future.result()

    def close(self) -> None:
        """Let the thread end; it is not waited for."""
        self._pool.close()


def _init(plugin: Plugin[object], context: InitContext, after: After) -> object:
    threading.current_thread().name = f"init {plugin.uri}"
    try:
        instance = plugin.init(context)
    except BaseException as error:
        raise as_exception(error, "its init") from error
    check_instance(instance, plugin.type.contract)
    check_meta(context.meta)
    after(context)
    return instance


def check_instance(instance: object, contract: type[object] | None) -> None:
    """Raise InvalidArgument for an instance without the methods and properties of its contract."""
    if contract is None:
        return
    if instance is None:
        raise InvalidArgument(
            f"its init returned None; it must return an object with the methods of {contract.__name__}"
        )
    members = {name: getattr(contract, name) for name in dir(contract) if not name.startswith("_")}
    methods = {name: method for name, method in members.items() if inspect.isfunction(method)}
    missing = [
        name for name, member in members.items() if isinstance(member, property) and not _has(instance, member, name)
    ]
    missing += [name for name, method in methods.items() if _lacks(instance, name, method)]
    if missing:
        kind = type(instance).__name__
        raise InvalidArgument(
            f"its init returned an object of class {kind}, which lacks {', '.join(missing)} of {contract.__name__}"
        )
    for name, method in methods.items():
        if inspect.iscoroutinefunction(getattr(instance, name)) and not inspect.iscoroutinefunction(method):
            raise InvalidArgument(f"its {name} is async, and that of {contract.__name__} is not")


def _has(instance: object, declared: property, name: str) -> bool:
    """Return whether an instance has a property of its own, which is not asked for its value."""
    return inspect.getattr_static(instance, name, declared) is not declared


def _lacks(instance: object, name: str, declared: FunctionType) -> bool:
    """Return whether an instance has no such method, or only the contract's own, which does nothing."""
    found, code = getattr(instance, name, None), declared.__code__
    does_nothing = not code.co_names and {*code.co_consts} <= {declared.__doc__, None}
    return not callable(found) or (does_nothing and getattr(found, "__func__", None) is declared)


def check_meta(meta: Meta) -> None:
    """Raise InvalidArgument for what no client could be sent: it would keep them from seeing any plugin."""
    platforms = [part for each in meta.platforms for part in each]
    for text in (*meta.exports, *meta.exports.values(), *meta.capabilities, *platforms):
        if not isinstance(text, str):
            raise InvalidArgument(f"it publishes {text!r}, which is not text")
