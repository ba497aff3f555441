"""Calls of a plugin's methods with names of things that do not exist.

The answer may be anything but a surprise: a result, or an error of `windlass.errors`, soon.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Protocol

from windlass.boot import Daemon
from windlass.errors import Error, with_class
from windlass.gate import offloaded, take
from windlass.plugin import Plugin
from windlass_client.plugincheck.result import FAILED, NOTE, PASSED

NOTHING = "windlass-check-nothing"
ARGUMENTS: dict[str, object] = {
    "str": NOTHING,
    "Sequence[str]": (),
    "int": 0,
    "float": 0.1,
    "bool": False,
}
PATIENCE = 5.0


class Report(Protocol):
    """Takes results."""

    def step(self, name: str) -> None:
        """Say what is done next."""

    def result(self, check: str, result: str, detail: str = "") -> None:
        """Say what came of a check."""


async def ask(report: Report, daemon: Daemon, plugin: Plugin[object]) -> None:
    """Call every method of the contract whose arguments can be made up."""
    (context,) = (each for each in daemon.of_type(plugin.type.uri) if each.uri == plugin.uri)
    asked, bad = 0, 0
    for name, arguments in _calls(plugin.type.contract):
        report.step(f"call of {name}")
        asked += 1
        surprise = await _surprise(getattr(context.handle, name), arguments)
        if surprise:
            bad += 1
            report.result("calls", FAILED, f"{name}{arguments} {surprise}")
    if not asked:
        report.result("calls", NOTE, "its contract has no methods that can be asked with made-up arguments")
    elif not bad:
        report.result("calls", PASSED, f"{asked} methods, asked for what does not exist")


def _calls(contract: type[object] | None) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Yield methods and arguments for them."""
    for name in dir(contract) if contract is not None else ():
        method = getattr(contract, name)
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        parameters = list(inspect.signature(method).parameters.values())[1:]
        needed = [each for each in parameters if each.default is each.empty and each.kind != each.VAR_KEYWORD]
        kinds = [_written(each.annotation) for each in needed]
        if all(kind in ARGUMENTS for kind in kinds):
            yield name, tuple(ARGUMENTS[kind] for kind in kinds)


def _written(annotation: object) -> str:
    """Return an annotation as it is written: a string already, where annotations are not evaluated."""
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")


async def _surprise(method: Callable[..., Awaitable[object] | object], arguments: tuple[object, ...]) -> str:
    """Return what is wrong with how a method answers, empty if nothing is."""
    try:
        async with asyncio.timeout(PATIENCE):
            if inspect.iscoroutinefunction(method):
                answer = method(*arguments)
                assert inspect.isawaitable(answer)
                await answer
            else:
                await offloaded(_whole, deadline=PATIENCE)(method, arguments)
    except TimeoutError:
        return f"did not answer within {PATIENCE:g} s"
    except Error as error:
        return f"did not answer within {PATIENCE:g} s" if "did not end within" in str(error) else ""
    except OSError:
        return ""  # contracts let the errors of the system pass
    except Exception as error:  # noqa: BLE001 -- a plugin may raise anything; that is what is looked for
        return f"raises {with_class(error)}; raise a class of windlass.errors"
    return ""


def _whole(method: Callable[..., object], arguments: tuple[object, ...]) -> None:
    """Call a method and take the first items of what it yields."""
    answer = method(*arguments)
    if isinstance(answer, Iterator):
        take(answer, 10)
    close = getattr(answer, "close", None)
    if callable(close) and not isinstance(answer, Iterator):
        with suppress(Error):
            close()
