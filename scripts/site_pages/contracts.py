"""The pages of what plugins implement: the types of plugins with their methods, and the steps of hooks."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType

import windlass.contracts
from site_pages.markdown import fence
from windlass.marks import step_of
from windlass.plugin import PluginType

QUOTES = re.compile(r"``?([^`\n]+)``?")
ANNOTATION = re.compile(r"(?<=: |> )'([^']*)'")


def hooks_page() -> str:
    """Return the page of the steps in which a plugin of type ``io.windlass.hook.v1`` may have a say."""
    parts = [
        "# Hooks",
        "Steps in which a plugin of type `io.windlass.hook.v1` may have a say.",
        "[How to write one](../docs/writing-a-plugin.md#a-say-in-a-step).",
    ]
    for module in _modules():
        for holder in _classes(module):
            steps = [each for each in vars(holder).values() if step_of(each)]
            if steps:
                parts += [f"## `{holder.__name__}`", f"In `{module.__name__}`. {_about(holder)}"]
                parts += [text for step in steps for text in _step(step)]
    return "\n\n".join(parts)


def _step(function: Callable[..., object]) -> Iterator[str]:
    step = step_of(function)
    assert step
    yield f"### `{function.__name__}`"
    yield fence("python", _signature(function.__name__, function))
    yield _about(function)
    yield f"Policy {step.policy}; each participant has {step.deadline:g} s."


def plugins_page() -> str:
    """Return the page of the types of plugins, each with the methods that its contract demands."""
    parts = [
        "# Types of plugins",
        "A contract is a `Protocol` of Python. [Recipes](../docs/recipes.md) say how to write a plugin of each type.",
    ]
    for kind, where in sorted(_types(), key=lambda each: each[0].uri):
        about = f" {_about(kind.contract)}" if kind.contract else " Its plugins provide nothing that others call."
        parts += [f"## {kind.uri}", f"`{where}`, version {kind.version[0]}.{kind.version[1]}.{about}"]
        for name, method in _methods(kind.contract) if kind.contract else ():
            parts += [fence("python", _signature(name, method)), _about(method)]
    return "\n\n".join(parts)


def _types() -> Iterator[tuple[PluginType[object], str]]:
    for module in _modules():
        for name, value in vars(module).items():
            if isinstance(value, PluginType):
                yield value, f"{module.__name__}.{name}"


def _modules() -> Iterator[ModuleType]:
    for each in pkgutil.iter_modules(windlass.contracts.__path__, "windlass.contracts."):
        yield import_module(each.name)


def _classes(module: ModuleType) -> Iterator[type]:
    for value in vars(module).values():
        if inspect.isclass(value) and value.__module__ == module.__name__:
            yield value


def _methods(contract: type) -> Iterator[tuple[str, Callable[..., object]]]:
    for holder in reversed(contract.__mro__):
        for name, value in vars(holder).items():
            if inspect.isfunction(value) and not name.startswith("_") and holder.__module__.startswith("windlass."):
                yield name, value


def _signature(name: str, function: Callable[..., object]) -> str:
    kind = "async def" if inspect.iscoroutinefunction(function) else "def"
    arguments = ANNOTATION.sub(r"\1", str(inspect.signature(function)))
    return f"{kind} {name}{arguments}"


def _about(thing: object) -> str:
    """Return a docstring as Markdown."""
    return QUOTES.sub(r"`\1`", inspect.getdoc(thing) or "")
