"""Hooks: every participant has its say, and a failing one does what the step's policy says."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from windlass.contracts.containers import Container
from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, Error, FailedPrecondition, InvalidArgument
from windlass.hooks import OPEN, Hooks, hookimpl, policy


class Adds:
    @hookimpl
    def adjust_spec(self, namespace: str, spec: dict[str, Any]) -> None:
        spec.setdefault("seen", []).append(namespace)


class Refuses:
    @hookimpl
    def adjust_spec(self, container: Container) -> None:
        raise InvalidArgument(f"container {container.id} is not allowed here")


class Steps:
    @policy(OPEN)
    def watched(self, value: int) -> None: ...


class Watches:
    @hookimpl
    def watched(self, value: int) -> int:
        return value + 1


class Stumbles:
    @hookimpl
    def watched(self, value: int) -> int:
        raise InvalidArgument("stumbled")


def test_nobody_is_asked_where_nobody_takes_part() -> None:
    """So that the spec is not even decoded for nobody."""
    hooks = Hooks()
    assert not hooks.wanted("adjust_spec")
    hooks.add(Adds(), "type.a.1")
    assert hooks.wanted("adjust_spec")


def test_every_participant_may_change_the_spec() -> None:
    """In place, with only those arguments that it names."""
    hooks, spec = Hooks(), dict[str, object]()
    hooks.add(Adds(), "type.a.1")
    hooks.add(Adds(), "type.a.2")
    hooks.call("adjust_spec", namespace="n", container=Container("c"), spec=spec)
    assert spec == {"seen": ["n", "n"]}


def test_a_closed_step_fails_with_its_participant() -> None:
    """And says who refused what."""
    hooks = Hooks()
    hooks.add(Refuses(), "type.a.1")
    with pytest.raises(FailedPrecondition, match=r"type\.a\.1 refuses adjust_spec: container c is not allowed here"):
        hooks.call("adjust_spec", namespace="n", container=Container("c"), spec={})


def test_an_open_step_goes_on_without_a_failing_participant(caplog: pytest.LogCaptureFixture) -> None:
    """Its failure is in the log."""
    hooks = Hooks()
    hooks.specify(Steps)
    hooks.add(Watches(), "type.a.1")
    hooks.add(Stumbles(), "type.a.2")
    assert hooks.call("watched", value=1) == [2]
    assert "type.a.2 fails in watched: stumbled" in caplog.text


IMAGE = {"namespace": "n", "name": "example.org/a:1", "desc": Descriptor("m", "sha256:" + 64 * "0", 1)}


class AsksFor:
    """A coroutine: what it says counts only when somebody awaits it."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed
        self.asked = 0

    @hookimpl
    async def admit_image(self, name: str) -> None:
        await asyncio.sleep(0)
        self.asked += 1
        if name not in self.allowed:
            raise InvalidArgument(f"{name} is not on the list")


def test_a_coroutine_is_awaited() -> None:
    """Its refusal is one, and it admits what it allows."""
    hooks = Hooks()
    participant = AsksFor("example.org/b:1")
    hooks.add(participant, "type.a.1")
    with pytest.raises(FailedPrecondition, match=r"type\.a\.1 refuses admit_image: .* is not on the list"):
        hooks.call("admit_image", **IMAGE)
    hooks.call("admit_image", **{**IMAGE, "name": "example.org/b:1"})
    assert participant.asked == 2


def test_a_function_that_returns_a_coroutine_is_awaited_too() -> None:
    """A decorator may hide that a step is one."""

    class Hidden:
        @hookimpl
        def admit_image(self, name: str) -> object:
            return AsksFor().admit_image(name)

    hooks = Hooks()
    hooks.add(Hidden(), "type.a.1")
    with pytest.raises(FailedPrecondition, match="is not on the list"):
        hooks.call("admit_image", **IMAGE)


async def test_a_coroutine_never_admits_where_it_cannot_be_awaited() -> None:
    """On a running loop the step fails closed."""
    hooks = Hooks()
    hooks.add(AsksFor("example.org/a:1"), "type.a.1")
    with pytest.raises(FailedPrecondition, match=r"type\.a\.1 refuses admit_image"):
        hooks.call("admit_image", **IMAGE)


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


class Yields:
    @hookimpl
    def adjust_spec(self, spec: dict[str, Any]) -> None:
        spec["yields"] = True

    @hookimpl
    def admit_image(self, name: str) -> Generator[None, None, None]:
        yield


@pytest.mark.parametrize(
    ("participant", "told"),
    [
        (Misspelt(), 'there is no step "admit_imag"; did you mean "admit_image"?'),
        (TakesMore(), 'admit_image has no argument "reference"; it has desc, name, namespace'),
        (Yields(), "wrapper=True"),
    ],
)
def test_a_participant_takes_part_as_a_whole_or_not_at_all(participant: object, told: str) -> None:
    """One wrong step keeps the others from acting, and the next plugin is not disturbed."""
    hooks, spec = Hooks(), dict[str, object]()
    with pytest.raises(InvalidArgument) as refused:
        hooks.add(participant, "type.a.1")
    assert told in str(refused.value)
    assert hooks.missing("admit_image") == hooks.missing("adjust_spec") == {"type.a.1": str(refused.value)}
    assert not hooks.missing("watched")
    assert str(refused.value).startswith("type.a.1: ")
    hooks.add(Adds(), "type.a.2")
    hooks.call("adjust_spec", namespace="n", container=Container("c"), spec=spec)
    assert spec == {"seen": ["n"]}


def test_a_plugin_adds_one_participant() -> None:
    """A second one under its URI is refused, and the first stays."""
    hooks, spec = Hooks(), dict[str, object]()
    hooks.add(Adds(), "type.a.1")
    with pytest.raises(AlreadyExists, match=r"type\.a\.1 takes part already"):
        hooks.add(Adds(), "type.a.1")
    hooks.call("adjust_spec", namespace="n", container=Container("c"), spec=spec)
    assert spec == {"seen": ["n"]}


class Breaks:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    @hookimpl
    def watched(self) -> int:
        raise self.error

    @hookimpl
    def adjust_spec(self) -> None:
        raise self.error


ERRORS = [KeyError("x"), TimeoutError(), SystemExit(3), KeyboardInterrupt(), AssertionError("no")]


@pytest.mark.parametrize("error", ERRORS)
def test_every_exception_counts(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """An open step goes on, a closed one fails, and both name the plugin and the exception."""
    hooks = Hooks()
    hooks.specify(Steps)
    hooks.add(Watches(), "type.a.1")
    hooks.add(Breaks(error), "type.a.2")
    assert hooks.call("watched", value=1) == [2]
    assert f"type.a.2 fails in watched: {type(error).__name__}" in caplog.text
    with pytest.raises(FailedPrecondition, match=rf"type\.a\.2 refuses adjust_spec: {type(error).__name__}"):
        hooks.call("adjust_spec", namespace="n", container=Container("c"), spec={})


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


def test_a_wrapper_runs_around_the_others() -> None:
    """It sees what they answered, and what it returns is the answer."""
    hooks, wraps = Hooks(), Wraps()
    hooks.specify(Steps)
    hooks.add(wraps, "type.a.1")
    hooks.add(Watches(), "type.a.2")
    assert hooks.call("watched", value=1) == [2, 100]
    assert wraps.seen == [1, [2]]


def test_a_wrapper_sees_a_refusal_and_cannot_undo_it() -> None:
    """Closed is closed, whoever stands around."""
    hooks, wraps = Hooks(), Wraps()
    hooks.specify(Steps)
    hooks.add(Refuses(), "type.a.1")
    hooks.add(wraps, "type.a.2")
    with pytest.raises(FailedPrecondition, match=r"type\.a\.1 refuses adjust_spec"):
        hooks.call("adjust_spec", namespace="n", container=Container("c"), spec={})
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
        return answers

    @hookimpl(wrapper=True)
    def watched(self) -> Generator[None, list[Any], list[Any]]:
        return (yield from self._wrap())

    @hookimpl(wrapper=True)
    def adjust_spec(self) -> Generator[None, list[Any], list[Any]]:
        return (yield from self._wrap())


@pytest.mark.parametrize("moment", ["before", "never", "after", "twice"])
def test_a_wrapper_that_fails_does_what_the_policy_says(moment: str, caplog: pytest.LogCaptureFixture) -> None:
    """Open, the others' answers stand; closed, the step fails."""
    hooks = Hooks()
    hooks.specify(Steps)
    hooks.add(WrapsBadly(moment), "type.a.1")
    hooks.add(Watches(), "type.a.2")
    assert hooks.call("watched", value=1) == [2]
    assert "type.a.1 fails in watched" in caplog.text
    with pytest.raises(FailedPrecondition, match=r"type\.a\.1 refuses adjust_spec"):
        hooks.call("adjust_spec", namespace="n", container=Container("c"), spec={})
