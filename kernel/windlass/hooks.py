"""Hooks: small, typed steps in a lifecycle in which many plugins may have a say.

A contract has its steps in a class whose methods `windlass.marks.step` marks. A
plugin of type `windlass.plugin.HOOK` names such classes, and its ``init`` returns
an object whose methods, marked with `hookimpl`, take part. pluggy makes the call,
so order, wrappers and ``firstresult`` are as in its documentation, with one
exception: a wrapper sees the refusal of a closed step and cannot undo it.

The caller awaits a step on the daemon's loop; a thread of `Hooks` is inside pluggy
meanwhile. Each participant is called in a thread of its gate's pool, and what it
returns is awaited on its gate's own loop. So a participant that blocks or hangs
holds up only steps that it takes part in, each for its deadline at most.

A participant that speaks for others, and at times for none, has a method
``has_say``: it gets the name of a step and returns at once whether there is
anything to ask. A step in which nobody has a say costs its caller nothing.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import logging
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Concatenate, ParamSpec, TypeVar

import pluggy

from windlass.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Error,
    FailedPrecondition,
    InvalidArgument,
    Unavailable,
    with_class,
)
from windlass.gate import Gate
from windlass.marks import CLOSED, OPEN, Step, step_of
from windlass.pool import Pool

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
Function = Callable[..., object]

PROJECT = "windlass"
CALLS = 16
"""How many steps may be under way at once; further ones wait."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
logger = logging.getLogger(__name__)


class Hooks:
    """The participants of every step; one for a daemon."""

    def __init__(self) -> None:
        """Know no step yet, `add` brings them; must be made on the loop that calls are made on."""
        self._loop = asyncio.get_running_loop()
        self._manager = pluggy.PluginManager(PROJECT)
        self._pool = Pool("hooks", CALLS)
        self._callers: dict[Function, pluggy.HookCaller] = {}
        """Of the steps that have participants."""
        self._says: dict[Function, list[Callable[[str], bool]]] = {}
        """Of each participant of a step, whether it has a say now."""
        self._failed: dict[str, tuple[str, Collection[type[object]] | None]] = {}

    def add(self, participant: object, gate: Gate, classes: Collection[type[object]]) -> None:
        """Let the marked methods of ``participant`` take part in the steps of ``classes``, behind their plugin's gate.

        All of them or none: raises InvalidArgument when one of them cannot take part, and AlreadyExists for a
        second participant of one plugin.
        """
        uri, guarded, asked = gate.uri, _Participant(), set()
        steps = {name: step for each in classes for name, step in vars(each).items() if step_of(step)}
        for name in dir(participant):
            options = self._manager.parse_hookimpl_opts(participant, name)
            if options is None or (options["optionalhook"] and (options["specname"] or name) not in steps):
                continue
            function, step = getattr(participant, name), _step(options["specname"] or name, steps, uri)
            _check(function, step, options["wrapper"], uri)
            part = _Part(function, step, gate, self._loop)
            vars(guarded)[name] = hookimpl(**options)(part.wrapper() if options["wrapper"] else part.plain())
            asked.add(step)
        if not asked:
            raise InvalidArgument(f"{uri} takes part in no step; mark methods of what its init returns with hookimpl")
        if self._manager.has_plugin(uri):
            raise AlreadyExists(f"{uri} takes part already; add one object with all of its steps")
        for other in self._callers:
            if other not in asked and other.__name__ in {step.__name__ for step in asked}:
                raise InvalidArgument(f"{uri}: there is another step {other.__name__}, {other.__qualname__}")
        for step in asked - self._callers.keys():
            marked = hookspec(firstresult=_options(step).firstresult)(step)
            self._manager.add_hookspecs(type("Steps", (), {step.__name__: marked}))
            self._callers[step] = getattr(self._manager.hook, step.__name__)
        for step in asked:
            self._says.setdefault(step, []).append(getattr(participant, "has_say", _always))
        self._manager.register(guarded, name=uri)

    def fail(self, uri: str, reason: str, classes: Collection[type[object]] | None = None) -> None:
        """Make closed steps of ``classes`` fail, because a plugin of them did not start; None means all steps."""
        self._failed[uri] = (reason, classes)

    def missing(self, step: Function) -> dict[str, str]:
        """Return why plugins that might refuse in a closed step cannot, by their URIs: they did not start."""
        return {
            uri: reason
            for uri, (reason, classes) in self._failed.items()
            if _options(step).policy == CLOSED
            if classes is None or any(step in vars(each).values() for each in classes)
        }

    def wanted(self, step: Function) -> bool:
        """Return whether a call of a step does anything, so that work for it can be left out."""
        return any(says(step.__name__) for says in self._says.get(step, ())) or bool(self.missing(step))

    async def call(self, step: Callable[Concatenate[S, P], R], *args: P.args, **kwargs: P.kwargs) -> list[R]:
        """Ask every participant in turn, last registered first, and return what they answered that is not None.

        A ``firstresult`` step has one answer at most. Raises FailedPrecondition, naming the plugin, when one
        fails in a closed step, or did not start and might refuse.
        """
        for uri, reason in self.missing(step).items():
            remedy = f"mend it, or name it in disabled_plugins: {reason}"
            raise FailedPrecondition(f"{uri} did not start and might refuse {step.__name__}; {remedy}")
        if not self.wanted(step):
            return []
        arguments = inspect.signature(step).bind(None, *args, **kwargs).arguments
        arguments.pop("self")
        answers = await self._pool.submit(functools.partial(self._callers[step], **arguments), None).future
        if _options(step).firstresult:
            return [] if answers is None else [answers]
        return list(answers)

    def close(self) -> None:
        """Call no further step; those under way are not waited for."""
        self._pool.close()


class _Participant:
    """Holds the guarded methods of one plugin, as pluggy registers them."""


def _always(step: str) -> bool:
    return True


def _options(step: Function) -> Step:
    found = step_of(step)
    if found is None:
        raise InvalidArgument(f"{step.__qualname__} is not a step; mark it with windlass.marks.step")
    return found


def _step(name: str, steps: Mapping[str, Function], uri: str) -> Function:
    if name in steps:
        return steps[name]
    import difflib  # for mistakes alone

    near = difflib.get_close_matches(name, steps, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(sorted(steps))}"
    raise InvalidArgument(f'{uri}: there is no step "{name}"; {hint}')


def _check(function: Function, step: Function, wrapper: bool, uri: str) -> None:
    """Raise InvalidArgument for a method that pluggy could not call."""
    if inspect.isasyncgenfunction(function) or wrapper != inspect.isgeneratorfunction(function):
        remedy = "a wrapper is a plain generator marked with wrapper=True, and nothing else yields"
        raise InvalidArgument(f"{uri}: {step.__name__} cannot be called; {remedy}")
    known = set(inspect.signature(step).parameters) - {"self"}
    for each in inspect.signature(function).parameters.values():
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            if each.name not in known:
                has = ", ".join(sorted(known))
                raise InvalidArgument(f'{uri}: {step.__name__} has no argument "{each.name}"; it has {has}')
            if each.kind == each.KEYWORD_ONLY:
                raise InvalidArgument(f'{uri}: {step.__name__} gives "{each.name}" by its place, not as a keyword')


class _Refusal(FailedPrecondition):
    """A closed step has failed, and the message says by which plugin."""


class _Part:
    """A participant's part in one step, called as its gate and the step's policy say."""

    def __init__(self, function: Function, step: Function, gate: Gate, loop: asyncio.AbstractEventLoop) -> None:
        self._function = function
        self._name = step.__name__
        self._options = _options(step)
        self._gate = gate
        self._loop = loop

    def plain(self) -> Function:
        """Return what pluggy calls."""

        @functools.wraps(self._function)  # pluggy reads the names of its arguments
        def ask(*given: object) -> object:
            return self._decide(functools.partial(self._function, *given), None)

        return ask

    def wrapper(self) -> Function:
        """Return what pluggy calls for a wrapper: where it fails in an open step, the others' answers stand."""

        @functools.wraps(self._function)
        def wrap(*given: object) -> Generator[None, object, object]:
            generator = self._function(*given)
            assert isinstance(generator, Generator)  # `Hooks.add` takes no other
            if not self._decide(functools.partial(_begin, generator), False):
                return (yield)
            try:
                answers = yield
            except _Refusal as refusal:
                with contextlib.suppress(Exception):
                    self._ask(functools.partial(generator.throw, refusal))
                raise
            return self._decide(functools.partial(_end, generator, answers), answers)

        return wrap

    def _decide(self, call: Callable[[], object], otherwise: object) -> object:
        """Return what a participant answers; where it fails, do what the step's policy says."""
        try:
            return self._ask(call)
        except Exception as error:  # whatever it is, the policy holds
            uri, reason, defect = self._gate.uri, with_class(error), not isinstance(error, Error)
            if self._options.policy == OPEN or defect:
                logger.warning("%s fails in %s: %s", uri, self._name, reason, exc_info=error if defect else None)
            if self._options.policy == OPEN:
                return otherwise
            raise _Refusal(f"{uri} refuses {self._name}: {reason}") from error

    def _ask(self, call: Callable[[], object]) -> object:
        """Make a participant do something within its time; in pluggy's thread."""
        try:
            return asyncio.run_coroutine_threadsafe(self._in_time(call), self._loop).result()
        except concurrent.futures.CancelledError:
            if not self._gate.closed:
                raise  # by something else that the participant awaited
            raise Unavailable("it was stopped meanwhile") from None

    async def _in_time(self, call: Callable[[], object]) -> object:
        limit, breaker = asyncio.timeout(self._options.deadline), self._gate.breaker
        try:
            async with limit:
                answer = await self._gate.guard(functools.partial(_answer, self._gate.pool, call), self._name)()
        except Unavailable:  # the breaker is open, most of the time
            raise
        except Exception:
            if limit.expired():
                breaker.missed()
                raise DeadlineExceeded(f"it did not end within {self._options.deadline:g} s") from None
            breaker.answered()
            raise
        breaker.answered()
        return answer


async def _answer(pool: Pool, call: Callable[[], object]) -> object:
    """Make a call in a thread of ``pool``, and await what it returns if that can be awaited; on the plugin's loop."""
    answer = await pool.submit(call, None).future
    return await answer if inspect.isawaitable(answer) else answer


def _begin(wrapper: Generator[object, object, object]) -> bool:
    try:
        next(wrapper)
    except StopIteration:
        raise RuntimeError("it does not yield") from None
    return True


def _end(wrapper: Generator[object, object, object], answers: object) -> object:
    try:
        wrapper.send(answers)
    except StopIteration as end:
        return end.value
    raise RuntimeError("it yields twice")
