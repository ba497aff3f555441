"""Restart policies: what parses, and what each does about a task that is not running (docs/containerd 3.20, 8.9)."""

from __future__ import annotations

import pytest

from windlass.contracts.tasks import Process, Status
from windlass.errors import InvalidArgument
from windlass_restart.policy import (
    COUNT,
    EXPLICITLY_STOPPED,
    POLICY,
    is_settled,
    next_count,
    parse_policy,
    wants_restart,
)


def stopped(exit_status: int = 0) -> Process:
    return Process("box", status=Status.STOPPED, exit_status=exit_status)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("", ("always", 0)),
        ("always", ("always", 0)),
        ("no", ("no", 0)),
        ("unless-stopped", ("unless-stopped", 0)),
        ("on-failure", ("on-failure", 0)),
        ("on-failure:3", ("on-failure", 3)),
    ],
)
def test_policies_parse(text: str, parsed: tuple[str, int]) -> None:
    """An empty one is `always`."""
    assert parse_policy(text) == parsed


@pytest.mark.parametrize(
    "text", ["always:3", "no:1", "sometimes", "on-failure:", "on-failure:x", "on-failure:-1", "on-failure:٣"]
)
def test_other_policies_are_refused(text: str) -> None:
    """A count belongs to on-failure alone, and is a number."""
    with pytest.raises(InvalidArgument):
        parse_policy(text)
    with pytest.raises(InvalidArgument):
        wants_restart({POLICY: text}, stopped(1))


@pytest.mark.parametrize("process", [None, stopped(), stopped(1), Process("box")])
def test_always_restarts(process: Process | None) -> None:
    """No task, a stopped one, an unknown one."""
    assert wants_restart({}, process)
    assert wants_restart({POLICY: "always"}, process)
    assert not wants_restart({POLICY: "no"}, process)


def test_on_failure_looks_at_exit_status_and_count() -> None:
    """A count that is no number is one too many."""
    assert not wants_restart({POLICY: "on-failure"}, stopped(0))
    assert not wants_restart({POLICY: "on-failure"}, None)
    assert wants_restart({POLICY: "on-failure"}, stopped(1))
    assert wants_restart({POLICY: "on-failure:2"}, stopped(1))
    assert wants_restart({POLICY: "on-failure:2", COUNT: "1"}, stopped(1))
    assert not wants_restart({POLICY: "on-failure:2", COUNT: "2"}, stopped(1))
    assert not wants_restart({POLICY: "on-failure:2", COUNT: "many"}, stopped(1))
    assert wants_restart({POLICY: "on-failure", COUNT: "many"}, stopped(1))


def test_unless_stopped_looks_at_its_label() -> None:
    """Only what says true counts."""
    assert wants_restart({POLICY: "unless-stopped"}, stopped())
    assert wants_restart({POLICY: "unless-stopped", EXPLICITLY_STOPPED: "false"}, stopped())
    assert not wants_restart({POLICY: "unless-stopped", EXPLICITLY_STOPPED: "true"}, stopped())


def test_the_count_goes_up_from_whatever_it_was() -> None:
    """From nothing, and from what is no number, to one."""
    assert [next_count({}), next_count({COUNT: "41"}), next_count({COUNT: "x"})] == ["1", "42", "1"]


@pytest.mark.parametrize("status", [Status.PAUSED, Status.PAUSING, Status.RUNNING])
def test_a_paused_task_is_running_enough(status: Status) -> None:
    """Nobody who paused a task wants it restarted."""
    assert is_settled("running", Process("box", status=status))
    assert not is_settled("stopped", Process("box", status=status))


def test_no_task_is_stopped_and_unknown_wishes_are_no_wishes() -> None:
    """Labels are anybody's text."""
    assert is_settled("stopped", None)
    assert is_settled("stopped", stopped())
    assert not is_settled("running", None)
    assert is_settled("flying", None)
