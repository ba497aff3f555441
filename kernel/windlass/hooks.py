"""Hooks: small, typed steps in a lifecycle in which many plugins may have a say.

A step is a method of a specification class; a plugin takes part by giving
`InitContext.hooks` an object whose methods are marked with `hookimpl`. Each
step states what happens when a participant raises any exception: ``open``, it is
logged and the rest goes on; ``closed``, the step fails, and with it what asked for it.
"""

from __future__ import annotations

import asyncio
import difflib
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

import pluggy

from windlass.contracts.containers import Container
from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, Error, FailedPrecondition, InvalidArgument, with_class

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
        self._arguments: dict[str, frozenset[str]] = {}
        self._missing: dict[str, dict[str, str]] = {}
        self.specify(ContainerHooks)
        self.specify(ImageHooks)

    def specify(self, specification: type[object]) -> None:
        """Add the steps of a class whose methods carry `policy`."""
        self._manager.add_hookspecs(specification)
        for name, function in vars(specification).items():
            if callable(function) and "windlass_policy" in vars(function):
                self._policies[name] = vars(function)["windlass_policy"]
                self._arguments[name] = frozenset(inspect.signature(function).parameters) - {"self"}

    def add(self, participant: object, uri: str) -> None:
        """Let the methods of ``participant`` that are marked with `hookimpl` take part, under the plugin's URI.

        All of them or none: raises InvalidArgument when one of them cannot take part, and AlreadyExists for a
        second participant of one plugin.
        """
        # Any: pluggy's options of each.
        marked: dict[str, Any] = {}
        for name in dir(participant):
            options = self._manager.parse_hookimpl_opts(participant, name)
            if options is not None and not (
                options["optionalhook"] and self._step(name, options) not in self._policies
            ):
                marked[name] = options
        try:
            guarded = self._guard(participant, uri, marked)
        except InvalidArgument as error:
            for name, options in marked.items():
                for step in difflib.get_close_matches(self._step(name, options), self._policies, n=1):
                    self._missing.setdefault(step, {})[uri] = str(error)
            raise
        try:
            self._manager.register(guarded, name=uri)
        except ValueError:
            raise AlreadyExists(f"{uri} takes part already; add one object with all of its steps") from None

    def missing(self, step: str) -> dict[str, str]:
        """Return why plugins that want a say in a step, by a name that is like its own, have none: by their URIs."""
        return self._missing.get(step, {})

    def withdraw(self, uri: str, reason: str = "") -> None:
        """Keep out a plugin that has added its participant and then did not start.

        With a reason its steps are `missing`; a plugin that skips itself gives none.
        """
        if not self._manager.has_plugin(uri):
            return
        participant = self._manager.unregister(name=uri)
        for name in vars(participant) if reason else ():
            step = self._step(name, self._manager.parse_hookimpl_opts(participant, name))
            self._missing.setdefault(step, {})[uri] = reason

    def _step(self, name: str, options: Any) -> str:
        return str(options["specname"] or name)

    def _guard(self, participant: object, uri: str, marked: dict[str, Any]) -> _Participant:
        guarded = _Participant()
        for name, options in marked.items():
            function, step = getattr(participant, name), self._step(name, options)
            self._check(function, step, uri)
            yields = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
            if options["hookwrapper"] or options["wrapper"] != yields or inspect.isasyncgenfunction(function):
                remedy = "a wrapper is a plain generator marked with wrapper=True, and nothing else yields"
                raise InvalidArgument(f"{uri}: {step} cannot be called; {remedy}")
            guard = _guarded_wrapper if options["wrapper"] else _guarded
            vars(guarded)[name] = hookimpl(**options)(guard(function, step, uri, self._policies[step]))
        return guarded

    # Any: a method of whatever signature.
    def _check(self, function: Callable[..., Any], step: str, uri: str) -> None:
        if step not in self._policies:
            near = difflib.get_close_matches(step, self._policies, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(sorted(self._policies))}"
            raise InvalidArgument(f'{uri}: there is no step "{step}"; {hint}')
        for parameter in inspect.signature(function).parameters.values():
            wanted = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            if wanted and parameter.default is parameter.empty and parameter.name not in self._arguments[step]:
                known = ", ".join(sorted(self._arguments[step]))
                raise InvalidArgument(f'{uri}: {step} has no argument "{parameter.name}"; it has {known}')

    def wanted(self, step: str) -> bool:
        """Tell whether anybody takes part in a step, so that work for nobody can be left out."""
        return bool(getattr(self._manager.hook, step).get_hookimpls())

    # Any: each step has its own arguments and results, typed by its specification.
    def call(self, step: str, **arguments: Any) -> list[Any]:
        """Ask every participant in turn, last registered first, and return what they answered that is not None.

        Call it from a thread, never on the loop: participants may block, and those that are coroutines are
        awaited here. Raises FailedPrecondition, naming the plugin, when one fails in a closed step.
        """
        answers: list[Any] = getattr(self._manager.hook, step)(**arguments)
        return answers


class _Participant:
    """Holds the guarded methods of one plugin, as pluggy registers them."""


class _Refusal(FailedPrecondition):
    """A closed step has failed, and the message says by which plugin."""


# Any, here and below: methods of whatever signature, called as pluggy does.
def _guarded(function: Callable[..., Any], step: str, uri: str, policy: str) -> Callable[..., Any]:
    """Return ``function`` with every exception turned into what the policy says."""

    @functools.wraps(function)
    def ask(*given: Any, **named: Any) -> Any:
        try:
            answer = function(*given, **named)
            # a coroutine that nobody awaits would count as consent
            return _awaited(answer) if inspect.isawaitable(answer) else answer
        except BaseException as error:  # noqa: BLE001 - whatever it is, the step's policy holds
            _fail(error, step, uri, policy)
            return None

    return ask


def _guarded_wrapper(function: Callable[..., Any], step: str, uri: str, policy: str) -> Callable[..., Any]:
    """Return the same for a wrapper: it sees a refusal and cannot undo it; where it fails in an open step, the
    others' answers stand.
    """

    @functools.wraps(function)
    def wrap(*given: Any, **named: Any) -> Generator[None, Any, Any]:
        wrapper = function(*given, **named)
        answers, refusal, begun = None, None, False
        try:
            next(wrapper)
            begun = True
            try:
                answers = yield
            except _Refusal as error:
                refusal = error
                wrapper.throw(error)
            else:
                wrapper.send(answers)
            raise RuntimeError("it yields twice")
        except StopIteration as end:
            if refusal is None and begun:
                return end.value
            problem: BaseException = refusal or RuntimeError("it does not yield")
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - as in `_guarded`
            problem = refusal or error
        if refusal is not None:
            raise refusal
        _fail(problem, step, uri, policy)
        return answers if begun else (yield)

    return wrap


def _awaited(answer: Awaitable[Any]) -> Any:
    async def result() -> Any:
        return await answer

    if asyncio._get_running_loop() is None:
        return asyncio.run(result())
    if inspect.iscoroutine(answer):
        answer.close()
    raise RuntimeError("a coroutine cannot be awaited on the loop; the step has to be called from a thread")


def _fail(error: BaseException, step: str, uri: str, policy: str) -> None:
    """Log what a participant raised, or raise it as a refusal: as the step's policy says."""
    reason, defect = with_class(error), not isinstance(error, Error)
    if policy == OPEN or defect:
        logger.warning("%s fails in %s: %s", uri, step, reason, exc_info=error if defect else None)
    if policy != OPEN:
        raise _Refusal(f"{uri} refuses {step}: {reason}") from error
