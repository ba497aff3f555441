"""Hooks: every participant has its say, and a failing one does what the step's policy says."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import pytest

from windlass.contracts.containers import Container, ContainerHooks
from windlass.contracts.images import ImageHooks
from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, Error, FailedPrecondition, InvalidArgument
from windlass.gate import MISSES_TO_OPEN, Gate
from windlass.hooks import Hooks, hookimpl
from windlass.marks import CLOSED, OPEN, step

DEADLINE = 0.2


class Steps:
    @step(OPEN, deadline=DEADLINE)
    def watched(self, value: int) -> int | None: ...

    @step(CLOSED, deadline=DEADLINE)
    def guarded(self, value: int) -> int | None: ...

    @step(OPEN, deadline=30)
    def patient(self, value: int) -> int | None: ...

    @step(OPEN, firstresult=True)
    def chosen(self, value: int) -> int | None: ...


ALL = (Steps, ContainerHooks, ImageHooks)
Join = Callable[..., Gate]


@pytest.fixture
async def hooks() -> AsyncIterator[Hooks]:
    made = Hooks()
    yield made
    made.close()


@pytest.fixture
async def join(hooks: Hooks) -> AsyncIterator[Join]:
    """Let an object take part, as the plugin of a URI."""
    gates = []

    def add(participant: object, uri: str, *classes: type[object]) -> Gate:
        gates.append(Gate(uri, own_loop=True))
        hooks.add(participant, gates[-1], classes or ALL)
        return gates[-1]

    yield add
    for gate in gates:
        gate.close()


async def adjust(hooks: Hooks, spec: dict[str, Any]) -> None:
    await hooks.call(ContainerHooks.adjust_spec, "n", Container("c"), spec)


async def admit(hooks: Hooks, name: str) -> None:
    await hooks.call(ImageHooks.admit_image, "n", name, Descriptor("m", "sha256:" + 64 * "0", 1))


class Adds:
    @hookimpl
    def adjust_spec(self, namespace: str, spec: dict[str, Any]) -> None:
        spec.setdefault("seen", []).append(namespace)


class Refuses:
    @hookimpl
    def adjust_spec(self, container: Container) -> None:
        raise InvalidArgument(f"container {container.id} is not allowed here")


class Watches:
    @hookimpl
    def watched(self, value: int) -> int:
        return value + 1


class Stumbles:
    @hookimpl
    def watched(self, value: int) -> int:
        raise InvalidArgument("stumbled")


async def test_no_work_is_done_for_a_step_without_participants(hooks: Hooks, join: Join) -> None:
    """So that the spec is not even decoded."""
    assert not hooks.wanted(ContainerHooks.adjust_spec)
    join(Adds(), "type.a.1")
    assert hooks.wanted(ContainerHooks.adjust_spec)
    assert not hooks.wanted(ImageHooks.admit_image)
    assert await hooks.call(Steps.watched, 1) == []


async def test_every_participant_may_change_the_spec(hooks: Hooks, join: Join) -> None:
    """In place, with only those arguments that it names."""
    spec: dict[str, Any] = {}
    join(Adds(), "type.a.1")
    join(Adds(), "type.a.2")
    await adjust(hooks, spec)
    assert spec == {"seen": ["n", "n"]}


async def test_a_closed_step_fails_with_its_participant(hooks: Hooks, join: Join) -> None:
    """And says who refused what."""
    join(Refuses(), "type.a.1")
    with pytest.raises(FailedPrecondition, match=r"type\.a\.1 refuses adjust_spec: container c is not allowed here"):
        await adjust(hooks, {})


async def test_an_open_step_goes_on_without_a_failing_participant(
    hooks: Hooks, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    """Its failure is in the log."""
    join(Watches(), "type.a.1")
    join(Stumbles(), "type.a.2")
    assert await hooks.call(Steps.watched, value=1) == [2]
    assert "type.a.2 fails in watched: stumbled" in caplog.text


# Order, as pluggy has it


class Answers:
    def __init__(self, *answers: int | None) -> None:
        self.answers = answers

    @hookimpl
    def watched(self) -> int | None:
        return self.answers[0]

    @hookimpl
    def chosen(self) -> int | None:
        return self.answers[-1]


class First(Answers):
    @hookimpl(tryfirst=True)
    def watched(self) -> int | None:
        return self.answers[0]


class Last(Answers):
    @hookimpl(trylast=True)
    def watched(self) -> int | None:
        return self.answers[0]


async def test_the_last_registered_is_asked_first_unless_it_says_otherwise(hooks: Hooks, join: Join) -> None:
    """`tryfirst` and `trylast` are pluggy's; None is no answer."""
    for number, kind in enumerate((First, Answers, Last, Answers), 1):
        join(kind(number), f"type.a.{number}")
    join(Answers(None), "type.a.5")
    assert await hooks.call(Steps.watched, 1) == [1, 4, 2, 3]


async def test_a_firstresult_step_ends_with_its_first_answer(hooks: Hooks, join: Join) -> None:
    """Those that come after it are not asked."""
    assert await hooks.call(Steps.chosen, 1) == []
    gate = join(Answers(1), "type.a.1")
    join(Answers(2), "type.a.2")
    join(Answers(None), "type.a.3")
    assert await hooks.call(Steps.chosen, 1) == [2]
    assert "chosen" not in gate.accounts


# Coroutines


class AsksFor:
    """A coroutine: what it says counts only when it is awaited."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed
        self.loops: list[asyncio.AbstractEventLoop] = []

    @hookimpl
    async def admit_image(self, name: str) -> None:
        await asyncio.sleep(0)
        self.loops.append(asyncio.get_running_loop())
        if name not in self.allowed:
            raise InvalidArgument(f"{name} is not on the list")


async def test_a_coroutine_is_awaited(hooks: Hooks, join: Join) -> None:
    """On one loop of its own; its refusal is one, and it admits what it allows."""
    participant = AsksFor("b")
    join(participant, "type.a.1")
    with pytest.raises(FailedPrecondition, match=r"type\.a\.1 refuses admit_image: .* is not on the list"):
        await admit(hooks, "a")
    await admit(hooks, "b")
    assert len(participant.loops) == 2
    assert len(set(participant.loops) | {asyncio.get_running_loop()}) == 2


async def test_a_function_that_returns_a_coroutine_is_awaited_too(hooks: Hooks, join: Join) -> None:
    """A decorator may hide that a step is one."""

    class Hidden:
        @hookimpl
        def admit_image(self, name: str) -> object:
            return AsksFor().admit_image(name)

    join(Hidden(), "type.a.1")
    with pytest.raises(FailedPrecondition, match="is not on the list"):
        await admit(hooks, "a")


# Deadlines


class Hangs:
    def __init__(self) -> None:
        self.release = threading.Event()

    @hookimpl
    def watched(self) -> None:
        self.release.wait(30)

    @hookimpl
    def guarded(self) -> None:
        self.release.wait(30)


class HangsInACoroutine:
    """It holds its own loop up, as a coroutine must not."""

    def __init__(self) -> None:
        self.release = threading.Event()

    @hookimpl
    async def watched(self) -> None:
        self.release.wait(30)

    @hookimpl
    async def guarded(self) -> None:
        self.release.wait(30)


@pytest.mark.parametrize("kind", [Hangs, HangsInACoroutine])
async def test_a_participant_that_hangs_has_its_deadline(
    kind: type[Hangs | HangsInACoroutine], hooks: Hooks, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    """Then the policy holds, and the daemon's loop has turned all the time."""
    hangs = kind()
    join(hangs, "type.a.1")
    join(Watches(), "type.a.2")
    turns = asyncio.create_task(count_turns())
    try:
        assert await hooks.call(Steps.watched, 1) == [2]
        assert f"type.a.1 fails in watched: it did not end within {DEADLINE:g} s" in caplog.text
        with pytest.raises(FailedPrecondition, match=r"type\.a\.1 refuses guarded: it did not end within"):
            await hooks.call(Steps.guarded, 1)
    finally:
        hangs.release.set()
        turns.cancel()
    assert len(TURNS) > 5


TURNS: list[float] = []


async def count_turns() -> None:
    TURNS.clear()
    while True:
        TURNS.append(time.monotonic())
        await asyncio.sleep(0.01)


async def test_a_step_that_the_end_of_its_participant_cuts_off_is_refused_in_words(
    hooks: Hooks, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    class Hangs:
        begun = threading.Event()

        @hookimpl
        async def adjust_spec(self) -> None:
            self.begun.set()
            await asyncio.Event().wait()

    gate = join(Hangs(), "type.a.1")
    adjusting = asyncio.create_task(adjust(hooks, {}))
    await asyncio.to_thread(Hangs.begun.wait, 20)
    gate.close()
    with pytest.raises(FailedPrecondition, match=r"type.a.1 refuses adjust_spec: it was stopped meanwhile"):
        await adjusting
    assert "Traceback" not in caplog.text


async def test_a_participant_that_hangs_opens_its_own_breaker(hooks: Hooks, join: Join) -> None:
    """From then on it is refused at once; the breaker of another stays as it is."""
    hangs = Hangs()
    sick, well = join(hangs, "type.a.1"), join(Watches(), "type.a.2")
    try:
        for _ in range(MISSES_TO_OPEN):
            await hooks.call(Steps.watched, 1)
        with pytest.raises(FailedPrecondition, match=r"type\.a\.1 has missed 5 deadlines in a row"):
            await hooks.call(Steps.guarded, 1)
    finally:
        hangs.release.set()
    well.breaker.check()
    with pytest.raises(Error):
        sick.breaker.check()


async def test_a_slow_step_holds_up_no_other(hooks: Hooks, join: Join) -> None:
    """Each call of a step has a thread."""

    class Slow:
        release = threading.Event()

        @hookimpl
        def patient(self) -> int:
            self.release.wait(30)
            return 1

    join(Slow(), "type.a.1")
    join(Watches(), "type.a.2")
    slow = asyncio.create_task(hooks.call(Steps.patient, 1))
    assert await hooks.call(Steps.watched, 1) == [2]
    assert not slow.done()
    Slow.release.set()
    assert await slow == [1]


# Refusals


class Misspelt:
    @hookimpl
    def adjust_spec(self, spec: dict[str, Any]) -> None:
        spec["misspelt"] = True

    @hookimpl
    def admit_imag(self, name: str) -> None: ...


class TakesMore:
    @hookimpl
    def adjust_spec(self, spec: dict[str, Any]) -> None:
        spec["more"] = True

    @hookimpl
    def admit_image(self, reference: str) -> None: ...


class TakesByKeyword:
    @hookimpl
    def admit_image(self, *, name: str) -> None: ...


class Yields:
    @hookimpl
    def adjust_spec(self, spec: dict[str, Any]) -> None:
        spec["yields"] = True

    @hookimpl
    def admit_image(self, name: str) -> Generator[None, None, None]:
        yield


class WrapsAsACoroutine:
    @hookimpl(wrapper=True)
    async def admit_image(self) -> None: ...


class YieldsInACoroutine:
    @hookimpl(wrapper=True)
    async def admit_image(self) -> AsyncIterator[None]:
        yield


class WrapsAsBefore:
    @hookimpl(hookwrapper=True)
    def admit_image(self) -> Generator[None, None, None]:
        yield


class HasNone:
    def admit_image(self, name: str) -> None: ...


@pytest.mark.parametrize(
    ("participant", "told"),
    [
        (Misspelt(), 'there is no step "admit_imag"; did you mean "admit_image"?'),
        (TakesMore(), 'admit_image has no argument "reference"; it has desc, name, namespace'),
        (TakesByKeyword(), 'admit_image gives "name" by its place, not as a keyword'),
        (Yields(), "wrapper=True"),
        (WrapsAsACoroutine(), "admit_image cannot be called; a wrapper is a plain generator"),
        (YieldsInACoroutine(), "admit_image cannot be called; a wrapper is a plain generator"),
        (WrapsAsBefore(), "admit_image cannot be called; a wrapper is a plain generator"),
        (HasNone(), "takes part in no step; mark methods of what its init returns with hookimpl"),
        (None, "takes part in no step; mark methods of what its init returns with hookimpl"),
    ],
)
async def test_a_participant_takes_part_as_a_whole_or_not_at_all(
    participant: object, told: str, hooks: Hooks, join: Join
) -> None:
    """One wrong step keeps the others from acting, and the next plugin is not disturbed."""
    spec: dict[str, Any] = {}
    with pytest.raises(InvalidArgument) as refused:
        join(participant, "type.a.1")
    assert told in str(refused.value)
    assert str(refused.value).startswith("type.a.1")
    join(Adds(), "type.a.2")
    await adjust(hooks, spec)
    assert spec == {"seen": ["n"]}


async def test_a_step_of_a_class_that_was_not_named_is_no_step(join: Join) -> None:
    """The declaration says which steps are meant, and is what is known when ``init`` fails."""
    with pytest.raises(InvalidArgument, match=r'there is no step "adjust_spec"; there are admit_image'):
        join(Adds(), "type.a.1", ImageHooks)


async def test_an_optional_step_may_be_unknown(hooks: Hooks, join: Join) -> None:
    """As in pluggy, for a step that only later versions have."""

    class Optional(Adds):
        @hookimpl(optionalhook=True)
        def of_tomorrow(self) -> None: ...

    spec: dict[str, Any] = {}
    join(Optional(), "type.a.1")
    await adjust(hooks, spec)
    assert spec == {"seen": ["n"]}


async def test_a_plugin_adds_one_participant(hooks: Hooks, join: Join) -> None:
    """A second one under its URI is refused, and the first stays."""
    spec: dict[str, Any] = {}
    join(Adds(), "type.a.1")
    with pytest.raises(AlreadyExists, match=r"type\.a\.1 takes part already"):
        join(Adds(), "type.a.1")
    await adjust(hooks, spec)
    assert spec == {"seen": ["n"]}


class Stands:
    @hookimpl
    def watched(self) -> None: ...


async def test_two_steps_of_one_name_are_not_mixed_up(hooks: Hooks, join: Join) -> None:
    """The second class's participant is refused."""

    class Others:
        @step(OPEN)
        def watched(self) -> None: ...

    join(Watches(), "type.a.1")
    with pytest.raises(InvalidArgument, match=r"type\.a\.2: there is another step watched, Steps\.watched"):
        join(Stands(), "type.a.2", Others)
    assert not hooks.wanted(Others.watched)


async def test_a_closed_step_misses_a_plugin_that_did_not_start(hooks: Hooks, join: Join) -> None:
    """Of the classes that it named, or of all if its declaration could not be read. An open step goes on."""
    join(Watches(), "type.a.1")
    hooks.fail("type.a.2", "its import failed", [Steps])
    assert await hooks.call(Steps.watched, 1) == [2]
    with pytest.raises(FailedPrecondition, match=r"type\.a\.2 did not start and might refuse guarded; mend it, or"):
        await hooks.call(Steps.guarded, 1)
    await admit(hooks, "a")
    hooks.fail("type.a.3", "its import failed")
    with pytest.raises(FailedPrecondition, match=r"type\.a\.3 did not start and might refuse admit_image; mend it, or"):
        await admit(hooks, "a")


# Policies


class Breaks:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    @hookimpl
    def watched(self) -> int:
        raise self.error

    @hookimpl
    def adjust_spec(self) -> None:
        raise self.error


class BreaksInACoroutine:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    @hookimpl
    async def watched(self) -> int:
        raise self.error

    @hookimpl
    async def adjust_spec(self) -> None:
        raise self.error


ERRORS = [KeyError("x"), TimeoutError(), SystemExit(3), KeyboardInterrupt(), AssertionError("no"), StopIteration(1)]


@pytest.mark.parametrize("kind", [Breaks, BreaksInACoroutine])
@pytest.mark.parametrize("error", ERRORS)
async def test_every_exception_counts(
    kind: type[Breaks | BreaksInACoroutine],
    error: BaseException,
    hooks: Hooks,
    join: Join,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An open step goes on, a closed one fails, and both name the plugin and the exception."""
    if isinstance(error, StopIteration) and kind is BreaksInACoroutine:
        pytest.skip("Python itself makes a RuntimeError of it")
    join(Watches(), "type.a.1")
    join(kind(error), "type.a.2")
    assert await hooks.call(Steps.watched, 1) == [2]
    assert f"type.a.2 fails in watched: {type(error).__name__}" in caplog.text
    with pytest.raises(FailedPrecondition, match=rf"type\.a\.2 refuses adjust_spec: {type(error).__name__}"):
        await adjust(hooks, {})


async def test_a_coroutine_that_lets_a_cancellation_pass_fails(hooks: Hooks, join: Join) -> None:
    """That of something else that it awaited: it is no consent."""

    class Cancels:
        @hookimpl
        async def adjust_spec(self) -> None:
            task = asyncio.create_task(asyncio.sleep(30))
            task.cancel()
            await task

    join(Cancels(), "type.a.1")
    with pytest.raises(FailedPrecondition, match=r"type\.a\.1 refuses adjust_spec: CancelledError"):
        await adjust(hooks, {})


# Wrappers


class Wraps:
    def __init__(self) -> None:
        self.seen: list[object] = []

    @hookimpl(wrapper=True)
    def watched(self, value: int) -> Generator[None, list[int], list[int]]:
        self.seen.append(value)
        answers = yield
        self.seen.append(answers)
        return [*answers, 100]

    @hookimpl(wrapper=True)
    def adjust_spec(self) -> Generator[None, list[Any], list[Any]]:
        try:
            return (yield)
        except Error as error:
            self.seen.append(str(error))
            return []


async def test_a_wrapper_runs_around_the_others(hooks: Hooks, join: Join) -> None:
    """It sees what they answered, and what it returns is the answer."""
    wraps = Wraps()
    join(wraps, "type.a.1")
    join(Watches(), "type.a.2")
    assert await hooks.call(Steps.watched, 1) == [2, 100]
    assert wraps.seen == [1, [2]]


async def test_a_wrapper_sees_a_refusal_and_cannot_undo_it(hooks: Hooks, join: Join) -> None:
    """Closed is closed, whatever stands around."""
    wraps = Wraps()
    join(Refuses(), "type.a.1")
    join(wraps, "type.a.2")
    with pytest.raises(FailedPrecondition, match=r"type\.a\.1 refuses adjust_spec"):
        await adjust(hooks, {})
    assert wraps.seen == ["type.a.1 refuses adjust_spec: container c is not allowed here"]


class WrapsBadly:
    def __init__(self, moment: str) -> None:
        self.moment = moment

    def _wrap(self) -> Generator[None, list[Any], list[Any]]:
        if self.moment == "before":
            raise KeyError("x")
        if self.moment == "never":
            return []
        answers = yield
        if self.moment == "after":
            raise KeyError("x")
        if self.moment == "twice":
            yield
        if self.moment == "late":
            time.sleep(2 * DEADLINE)
        return answers

    @hookimpl(wrapper=True)
    def watched(self) -> Generator[None, list[Any], list[Any]]:
        return (yield from self._wrap())

    @hookimpl(wrapper=True)
    def guarded(self) -> Generator[None, list[Any], list[Any]]:
        return (yield from self._wrap())


@pytest.mark.parametrize("moment", ["before", "never", "after", "twice", "late"])
async def test_a_wrapper_that_fails_does_what_the_policy_says(
    moment: str, hooks: Hooks, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    """Open, the others' answers stand; closed, the step fails."""
    join(WrapsBadly(moment), "type.a.1")
    join(Watches(), "type.a.2")
    assert await hooks.call(Steps.watched, 1) == [2]
    assert "type.a.1 fails in watched" in caplog.text
    with pytest.raises(FailedPrecondition, match=r"type\.a\.1 refuses guarded"):
        await hooks.call(Steps.guarded, 1)


class SpeaksForOthers:
    """Takes part in a step as long as somebody has asked it to."""

    def __init__(self) -> None:
        self.others: list[int] = []

    def has_say(self, step: str) -> bool:
        return step == "watched" and bool(self.others)

    @hookimpl
    def watched(self, value: int) -> int:
        return value + sum(self.others)


async def test_a_step_in_which_nobody_has_a_say_is_not_called(hooks: Hooks, join: Join) -> None:
    """Who speaks for others costs nothing while there are none; another participant of the step is asked."""
    speaker = SpeaksForOthers()
    join(speaker, "io.windlass.hook.v1.speaker")
    assert not hooks.wanted(Steps.watched)
    assert await hooks.call(Steps.watched, 1) == []
    speaker.others.append(2)
    assert hooks.wanted(Steps.watched)
    assert await hooks.call(Steps.watched, 1) == [3]
