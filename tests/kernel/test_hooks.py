"""Hooks: every participant has its say, and a failing one does what the step's policy says."""

from __future__ import annotations

from typing import Any

import pytest

from windlass.containers import Container
from windlass.errors import FailedPrecondition, InvalidArgument
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
    hooks, spec = Hooks(), {}
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
