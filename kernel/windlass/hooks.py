"""Hooks: small, typed steps in a lifecycle in which many plugins may have a say.

A step is a method of a specification class; a plugin takes part by giving
`InitContext.hooks` an object whose methods are marked with `hookimpl`. Each
step states what happens when a participant fails: ``open``, it is logged and the
rest goes on; ``closed``, the step fails, and with it what asked for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import pluggy

from windlass.containers import Container
from windlass.errors import Error, FailedPrecondition
from windlass.values import Descriptor

PROJECT = "windlass"
OPEN = "open"
CLOSED = "closed"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
logger = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., object])


def policy(value: str) -> Callable[[F], F]:
    """State what happens when a participant in this step fails: OPEN or CLOSED."""

    def mark(function: F) -> F:
        function.__dict__["windlass_policy"] = value
        return hookspec(function)

    return mark


class ContainerHooks:
    """Steps in the life of a container."""

    @policy(CLOSED)
    # Any: an OCI runtime specification as JSON, which participants change in place.
    def adjust_spec(self, namespace: str, container: Container, spec: dict[str, Any]) -> None:
        """Change the OCI spec of a task that is about to be created."""


class ImageHooks:
    """Steps in the life of an image."""

    @policy(CLOSED)
    def admit_image(self, namespace: str, name: str, desc: Descriptor) -> None:
        """Refuse, by raising an error, an image that somebody wants to pull or to import under ``name``.

        Asked after the verifiers, before anything of the image is fetched or unpacked.
        """


class Hooks:
    """The participants of every step; one for a daemon."""

    def __init__(self) -> None:
        """Know the steps of `ContainerHooks` and `ImageHooks`; further ones are added by `specify`."""
        self._manager = pluggy.PluginManager(PROJECT)
        self._policies: dict[str, str] = {}
        self.specify(ContainerHooks)
        self.specify(ImageHooks)

    def specify(self, specification: type[object]) -> None:
        """Add the steps of a class whose methods carry `policy`."""
        self._manager.add_hookspecs(specification)
        for name, function in vars(specification).items():
            if callable(function) and "windlass_policy" in vars(function):
                self._policies[name] = vars(function)["windlass_policy"]

    def add(self, participant: object, uri: str) -> None:
        """Let the methods of ``participant`` that are marked with `hookimpl` take part, under the plugin's URI."""
        self._manager.register(participant, name=uri)
        self._manager.check_pending()

    def wanted(self, step: str) -> bool:
        """Tell whether anybody takes part in a step, so that work for nobody can be left out."""
        return bool(getattr(self._manager.hook, step).get_hookimpls())

    # Any: each step has its own arguments and results, typed by its specification.
    def call(self, step: str, **arguments: Any) -> list[Any]:
        """Ask every participant in turn, last registered first, and return what they answered that is not None."""
        answers = []
        for implementation in reversed(getattr(self._manager.hook, step).get_hookimpls()):
            given = {name: arguments[name] for name in implementation.argnames}
            try:
                answer = implementation.function(**given)
            except Error as error:
                if self._policies[step] == CLOSED:
                    raise FailedPrecondition(f"{implementation.plugin_name} refuses {step}: {error}") from error
                logger.warning("%s fails in %s: %s", implementation.plugin_name, step, error)
                continue
            if answer is not None:
                answers.append(answer)
        return answers
